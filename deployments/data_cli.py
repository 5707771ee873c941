"""Commands over the data sets of a sequence, before work is spent on them."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

data = typer.Typer(no_args_is_help=True, help="Look at data sets before work is spent on them.")

Pictures = Annotated[
    bool, typer.Option("--pictures", help="Decode every picture as well (minutes for large sets)")
]
SequenceFile = Annotated[Path, typer.Argument(help="A sequence file, see deployments/sequences")]


@data.callback()
def _data() -> None:
    """Keep `check` a command of its own while it is the only one."""


@data.command("check")
def check_data(file: SequenceFile, pictures: Pictures = False) -> None:
    """Count images and classes of every data set of a sequence, with a digest of each split.

    Exit code 1 when anything is missing, or is not what the published data set has.
    """
    from deployments.plan_tables import data_table
    from tasks.data_report import look_at_data, open_pictures
    from tasks.sequence import load_sequence

    sequence = load_sequence(file)
    findings = look_at_data(sequence)
    console = Console()
    console.print(data_table(findings))
    for line in (line for each in findings for line in (*each.problems, *each.notes)):
        typer.echo(line)
    looked = unreadable = 0
    if pictures:
        total = sum(split.num_used for each in findings for split in each.splits)
        opened = open_pictures(sequence)
        if console.is_terminal:
            opened = track(opened, "Pictures", total, console=console, transient=True)
        for problem in opened:
            looked += 1
            if problem:
                typer.echo(problem)
                unreadable += 1
        typer.echo(f"{looked - unreadable:,} of {looked:,} pictures can be read")
    if wrong := sum(bool(each.problems) for each in findings):
        typer.echo(f"{file}: {wrong} of {len(findings)} data sets are not as they should be")
    if wrong or unreadable:
        sys.exit(1)
    typer.echo(f"{file}: all {len(findings)} data sets are there")
