"""Commands over the data sets of a sequence, before work is spent on them."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

data = typer.Typer(no_args_is_help=True, help="Look at data sets before work is spent on them.")

SequenceFile = Annotated[Path, typer.Argument(help="A sequence file, see deployments/sequences")]


@data.callback()
def _data() -> None:
    """Keep `check` a command of its own while it is the only one."""


@data.command("check")
def check_data(file: SequenceFile) -> None:
    """Count images and classes of every data set of a sequence, with a digest of each split.

    Exit code 1 when anything is missing, or is not what the published data set has.
    """
    from deployments.plan_tables import data_table
    from tasks.data_report import look_at_data
    from tasks.sequence import load_sequence

    findings = look_at_data(load_sequence(file))
    Console().print(data_table(findings))
    problems = [problem for each in findings for problem in each.problems]
    for problem in problems:
        typer.echo(problem)
    if problems:
        wrong = sum(bool(each.problems) for each in findings)
        typer.echo(f"{file}: {wrong} of {len(findings)} data sets are not as they should be")
        sys.exit(1)
    typer.echo(f"{file}: all {len(findings)} data sets are there")
