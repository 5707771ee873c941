"""Sequences side by side: each a flow of its own, and what they have in common is made once."""

from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
from pydantic import Field

from flows.continual_sequence import continual_sequence
from flows.storage import sequence_store
from gift_core.errors import Diverged, GiftError, Refused
from gift_core.settings import Settings
from tasks.check import check_sequence
from tasks.comparison import Compared, Contestant, read_contestants
from tasks.manifests import SequenceManifest
from tasks.progress import Progress, run_logger
from tasks.sequence import StoreSettings

Files = Annotated[
    tuple[str, ...], Field(description="Sequence files and grids (deployments/comparisons)")
]
Seeds = Annotated[tuple[int, ...], Field(description="Seeds; empty: those of the files")]
Place = Annotated[StoreSettings | None, Field(description="A store, over that of the files")]


class Comparison(Settings):
    """Rows that have at least one finished run, and a sentence for each run that has none."""

    name: str
    rows: tuple[Compared, ...]
    failures: tuple[str, ...] = ()


@flow(name="compare", persist_result=False)
def compare(files: Files, seeds: Seeds = (), store: Place = None) -> Comparison:
    """Run every row on every seed, one run after the other, and gather the metrics.

    All are checked before any work. A run that diverges, or that its gate stops, is told and left
    out, and the others go on. Raises SettingsError, DataError or StoreError for what is wrong.
    """
    name, contestants = read_contestants([Path(file) for file in files], seeds, store)
    for each in contestants:
        _check(each)
    failures: list[str] = []
    total = sum(len(each.sequences) for each in contestants)
    with Progress(f"Comparison {name}", total, "sequences") as progress:
        finished = [(each.name, _finished(each, progress, failures)) for each in contestants]
    rows = tuple(Compared.of(row, manifests) for row, manifests in finished if manifests)
    get_run_logger().info("%s: %d rows, %d runs failed", name, len(rows), len(failures))
    return Comparison(name=name, rows=rows, failures=tuple(failures))


def _finished(each: Contestant, progress: Progress, failures: list[str]) -> list[SequenceManifest]:
    """Run a row on its seeds; what ended without a matrix is told in `failures`."""
    finished = []
    for sequence in each.sequences:
        try:
            finished.append(continual_sequence(sequence=sequence).manifest)
        except (Diverged, Refused) as error:
            failures.append(f"{sequence.name}: {error}")
            run_logger().error("%s", failures[-1])
        progress.advance(note=sequence.name)
    return finished


def _check(each: Contestant) -> None:
    """Look at a row's inputs, which are the same for all of its seeds."""
    sequence = each.sequences[0]
    try:
        check_sequence(sequence, sequence_store(sequence.store))
    except GiftError as error:
        raise type(error)(f"{sequence.name}: {error}") from None
