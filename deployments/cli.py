"""The command `gift`: run sequences, read reports, look after heads. One more way to run flows.

Exit codes: 0 done; 1 the work itself failed; 2 refused before any work, with one sentence.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from deployments.compare_cli import comparing
from deployments.data_cli import SequenceFile, data
from deployments.embedded import set_embedded_defaults, without_heartbeats
from deployments.pairs_cli import pairs
from deployments.registry_cli import Block, checked_reason, open_at, registry, stored_at
from gift_core.errors import DataError, GiftError, Refused, SettingsError

if TYPE_CHECKING:
    from tasks.manifests import SequenceManifest
    from tasks.sequence import SequenceSettings

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__
)
app.add_typer(data, name="data")
app.add_typer(pairs, name="pairs")
app.add_typer(registry)  # without a name of its own: its commands stand beside `run`
app.add_typer(comparing)

StoreUrl = Annotated[
    str | None, typer.Option("--store", help="A folder or s3://bucket/prefix, over the file's")
]


@app.command()
def run(
    file: SequenceFile,
    store: StoreUrl = None,
    method: Annotated[
        str | None, typer.Option(help="gift, finetune, l2, ewc, zscl, ..., over the file's")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, over the file's")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the sequence, over the file's")] = None,
    override: Annotated[
        str | None, typer.Option(help="Why to promote what the gate refuses; it is kept")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and what is missing; do nothing")
    ] = False,
) -> None:
    """Learn a sequence of tasks; stages whose output stands are found, not repeated."""
    from tasks.sequence import StoreSettings, load_sequence

    overrides: dict[str, object] = {"method": method, "seed": seed, "name": name}
    if store is not None:
        overrides["store"] = StoreSettings(url=store)
    sequence = load_sequence(file, **{k: v for k, v in overrides.items() if v is not None})
    reason = None if override is None else checked_reason(override, "--override")
    if dry_run:
        show_plan(sequence)
        return
    from flows.continual_sequence import continual_sequence
    from flows.storage import sequence_store
    from tasks.check import check_sequence
    from tasks.report import load_sequence_manifest, report_address

    with _naming(file):
        check_sequence(sequence, sequence_store(sequence.store))
    place = sequence.store
    try:
        with without_heartbeats():
            result = continual_sequence(sequence=sequence, override=reason)
        show(result.manifest)
        typer.echo(result.summary)
    except Refused:  # what was done until then is reported; `main` says why it ended
        show(load_sequence_manifest(sequence_store(place), sequence.name))
        typer.echo(f"Report: {report_address(sequence_store(place), sequence.name)}")
        raise
    except GiftError as error:  # nothing was refused before: the work itself failed
        error.exit_code = GiftError.exit_code
        raise
    typer.echo(f"Report: {report_address(sequence_store(place), sequence.name)}")


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="Name of a sequence that was run")],
    store: StoreUrl = None,
    block: Block = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the HTML report to this file as well")
    ] = None,
) -> None:
    """Print the accuracy matrix and metrics of a sequence, and where its report is."""
    from tasks.report import load_sequence_manifest, render_report, report_address

    objects = stored_at(store, block)
    manifest = load_sequence_manifest(objects, name)
    show(manifest)
    if output is not None:
        output.write_text(render_report(objects, manifest), encoding="utf-8")
    typer.echo(f"Report: {output or report_address(objects, name)}")


@app.command()
def dashboard(
    store: StoreUrl = None,
    block: Block = None,
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free")] = 8400,
) -> None:
    """Serve a read-only web page over a store: sequences, heads, matrices, pairs, reports."""
    from deployments.dashboard.serving import serve

    serve(stored_at(store, block), host, port, typer.echo)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Say which sequence file a refused setting or data set stands in."""
    try:
        yield
    except (SettingsError, DataError) as error:
        raise type(error)(f"{file}: {error}") from None


def show(manifest: "SequenceManifest") -> None:
    """Print matrix and metrics."""
    from deployments.tables import matrix_table, metrics_table

    console = Console()
    console.print(matrix_table(manifest))
    console.print(metrics_table([manifest]))


def show_plan(sequence: "SequenceSettings") -> None:
    """Print what a run would do, from which rates its time is estimated, and what is missing."""
    from deployments.plan_tables import stages_table, storage_table, tasks_table
    from tasks.forecast import RATES, forecast

    console, plan = Console(), forecast(sequence)
    for table in (tasks_table(plan), stages_table(plan), storage_table(plan)):
        console.print(table)
    typer.echo("Estimated from:")
    for rate in RATES:
        typer.echo(f"  {rate}")
    missing = [*_missing_store(sequence), *plan.missing]
    typer.echo("Missing on this machine:" if missing else "Nothing is missing on this machine.")
    for sentence in missing:
        typer.echo(f"  {sentence}")


def _missing_store(sequence: "SequenceSettings") -> list[str]:
    """Why the store cannot be read, if it cannot; whether it can be written a run tries."""
    try:
        place = sequence.store
        open_at(place.url, place.block).impatient().exists("manifest.json")
    except GiftError as error:
        return [str(error)]
    return []


def main() -> NoReturn:
    """Run the command; what is refused is one sentence on standard error."""
    set_embedded_defaults()
    try:
        app()
    except GiftError as error:
        typer.echo(f"gift: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("gift: stopped; finished stages are kept, run it again to go on", err=True)
        sys.exit(130)
    sys.exit(0)


if __name__ == "__main__":
    main()
