"""The command that compares sequences: a grid of them over seeds, and a table of what came out."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deployments.embedded import without_heartbeats
from gift_core.errors import GiftError

comparing = typer.Typer()


@comparing.command()
def compare(
    files: Annotated[
        list[str], typer.Argument(help="Sequence files, or grids: see deployments/comparisons")
    ],
    seeds: Annotated[
        int | None, typer.Option(help="Seeds, over the files': one or several, --seeds 0 1 2")
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", help="A folder or s3://bucket/prefix, over the files'")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the page (.gift/comparisons/NAME)")
    ] = None,
) -> None:
    """Run sequences over seeds, and show mean and deviation; nothing finished is repeated."""
    from tasks.comparison import read_contestants
    from tasks.comparison_page import write_comparison
    from tasks.sequence import StoreSettings

    # An option takes one value: further seeds arrive among the files, where no number is a file.
    more = [each for each in files if seeds is not None and each.isdecimal()]
    named = tuple(each for each in files if each not in more)
    chosen = () if seeds is None else tuple(dict.fromkeys([seeds, *map(int, more)]))
    place = None if store is None else StoreSettings(url=store)
    # What is wrong with a file is said at once, not by a flow: Prefect takes seconds to come.
    read_contestants([Path(file) for file in named], chosen, place)
    from deployments.tables import comparison_table
    from flows.comparison import compare as run_comparison

    with without_heartbeats():
        result = run_comparison(named, chosen, place)
    if result.rows:
        Console().print(comparison_table(result.rows))
        folder = output or Path(".gift/comparisons") / result.name
        typer.echo(f"Comparison: {write_comparison(folder, result.name, result.rows)}")
    if result.failures:
        others = len(result.failures) - 1
        raise GiftError(result.failures[0] + (f" ({others} more failed)" if others else ""))
