"""Commands over replay pairs: look at them, hand them on."""

from pathlib import Path
from typing import Annotated

import typer

from deployments.registry_cli import Block, StoreUrl, stored_at

pairs = typer.Typer(no_args_is_help=True, help="Look at replay pairs, and hand them on.")

Pairs = Annotated[str, typer.Argument(help="SEQUENCE/TASK: those made before the task was learnt")]


@pairs.command()
def show(
    name: Pairs,
    store: StoreUrl = None,
    block: Block = None,
    output: Annotated[
        Path | None, typer.Option(help="The picture's file (SEQUENCE-TASK.png)")
    ] = None,
    launch: Annotated[bool, typer.Option("--open", help="Open it in the viewer")] = False,
) -> None:
    """Write a contact sheet of replay pairs, and say how many there are and were rejected."""
    from gift_core.errors import SettingsError
    from tasks.pairs_card import find_pairs, sheet_of

    objects = stored_at(store, block)
    found = find_pairs(objects, name)
    path = output or Path(f"{name.replace('/', '-')}.png")
    try:
        path.write_bytes(sheet_of(objects, found))
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be written ({error.strerror}); name another file"
        ) from None
    adapted = f"; adapted to tasks: {found.adapted_in_words}" if found.adapted else ""
    made = f"{found.num_pairs:,} pairs of {found.generator}{adapted}"
    typer.echo(f"{name}: {made}; {found.rejects_in_words}")
    typer.echo(f"Contact sheet: {path}")
    if launch:
        typer.launch(str(path))


@pairs.command()
def export(
    name: Pairs,
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet")],
    licence: Annotated[
        str, typer.Option(help="Under which the generator lets its pictures be passed on")
    ] = "unknown",
    store: StoreUrl = None,
    block: Block = None,
) -> None:
    """Put replay pairs into a folder as a data set with a card, every file verified."""
    from tasks.pairs_card import find_pairs, hand_on

    objects = stored_at(store, block)
    found = find_pairs(objects, name)
    hand_on(objects, found, folder, licence)
    typer.echo(f"{name}: {found.num_pairs:,} pairs; {folder / 'README.md'} says what they are")
    if licence == "unknown":
        typer.echo("Its licence is unknown: the generator's model card says it, give --licence")
