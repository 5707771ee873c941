"""Commands over a store: heads, their history, moving them, verifying, sweeping, exporting."""

import getpass
import re
import socket
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gift_core.errors import SettingsError, one_line

if TYPE_CHECKING:
    from tasks.store.heads import HeadEntry
    from tasks.store.objects import ObjectStore

registry = typer.Typer()

StoreUrl = Annotated[
    str | None, typer.Option("--store", help="A folder or s3://bucket/prefix (.gift/store)")
]
Block = Annotated[
    str | None,
    typer.Option("--block", help="A Prefect remote-file-system block with the store's credentials"),
]
Name = Annotated[str, typer.Argument(help="Name of a sequence")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the history")]
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_REASON = 500


class Form(StrEnum):
    """The forms that a model can be exported to."""

    OPEN_CLIP = "open-clip"
    TRANSFORMERS = "transformers"


@registry.command()
def status(store: StoreUrl = None, block: Block = None) -> None:
    """List the sequences of a store with their heads: task, time, model."""
    from tasks.store.heads import head_of, list_sequences

    objects = stored_at(store, block)
    names = list_sequences(objects)
    for name in names:
        head = head_of(objects, name)
        if head is not None:
            typer.echo(f"{name}: {_told(objects, head)}")
    if not names:
        typer.echo(f"no sequence of {objects.url} has a head yet; `gift run` promotes models")


@registry.command()
def log(name: Name, store: StoreUrl = None, block: Block = None) -> None:
    """Print what the head of a sequence was, newest first: when, why, by whom."""
    from tasks.store.export import need_head
    from tasks.store.heads import chain

    objects = stored_at(store, block)
    for entry in chain(objects, need_head(objects, name)):
        typer.echo(_told(objects, entry))
        typer.echo(f"    by {one_line(entry.actor)}: {one_line(entry.reason) or 'no reason given'}")
        for failure in entry.verdict.failures if entry.verdict else ():
            typer.echo(f"    against the gate: {one_line(str(failure))}")


@registry.command()
def promote(
    name: Name,
    model: Annotated[str, typer.Argument(help="finetune/KEY; the key's beginning is enough")],
    reason: Reason,
    store: StoreUrl = None,
    block: Block = None,
) -> None:
    """Make a model of the store the head of a sequence, without asking the gate."""
    from tasks.store import registry as heads
    from tasks.store.export import need_sequence
    from tasks.store.inventory import candidate_of, find_model, take_inventory

    objects = stored_at(store, block)
    need_sequence(objects, name)
    inventory = take_inventory(objects)
    candidate = candidate_of(inventory, find_model(inventory, model))
    entry = heads.promote(objects, name, candidate, reason=checked_reason(reason), actor=actor())
    _say(objects, name, entry)


@registry.command()
def rollback(
    name: Name,
    reason: Reason,
    to: Annotated[
        int | None, typer.Option(help="Number of an entry (default: the one before)")
    ] = None,
    store: StoreUrl = None,
    block: Block = None,
) -> None:
    """Make an earlier model the head again; the history says so and keeps what was."""
    from tasks.store import registry as heads

    objects = stored_at(store, block)
    entry = heads.rollback(objects, name, to=to, reason=checked_reason(reason), actor=actor())
    _say(objects, name, entry)


@registry.command()
def verify(store: StoreUrl = None, block: Block = None) -> None:
    """Hash everything anew that heads, reports and manifests reach; exit code 1 for damage."""
    from rich.console import Console
    from rich.progress import track

    from tasks.store.verify import verify_store

    objects, terminal = stored_at(store, block), Console(stderr=True)
    quiet = not terminal.is_terminal
    found = verify_store(
        objects,
        partial(
            track, description="Hashing files", console=terminal, transient=True, disable=quiet
        ),
    )
    for damage in found.damages:
        typer.echo(one_line(f"{damage.path}: {damage.problem}"))
    typer.echo(
        f"{found.num_outputs} outputs, {found.num_files} files, {found.num_bytes / 1e6:,.1f} MB, "
        f"{found.num_entries} entries of heads: "
        + (f"{len(found.damages)} damaged" if found.damages else "all as they were stored")
    )
    if found.damages:
        typer.echo(
            "an output: delete its manifest.json and run the sequence again, which makes it anew; "
            "a head: `gift rollback` to one that is whole"
        )
        raise typer.Exit(1)


@registry.command()
def gc(
    store: StoreUrl = None,
    block: Block = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; else only list it")] = False,
    older_than: Annotated[
        str, typer.Option(help="Spare what was written or used within this time: 7d, 12h, 30m")
    ] = "7d",
) -> None:
    """List what no head, no report and no running stage reaches; remove it with --delete."""
    from tasks.store.sweep import find_unreferenced, sweep

    seconds = seconds_of(older_than)
    objects = stored_at(store, block)
    found = find_unreferenced(objects, seconds)
    for each in found.groups:
        typer.echo(
            f"{one_line(each.what)}: {len(each.paths)} objects, {each.num_bytes / 1e6:,.1f} MB"
        )
    for left in found.leftovers:
        typer.echo(
            f"left by a killed writer, {one_line(left.name)}: {left.num_bytes / 1e6:,.1f} MB"
        )
    if found.runs:
        typer.echo(
            f"runs under way: {len(found.runs)}; what they have made or found is spared, as is all "
            f"that was written or found within {found.spared_seconds:,.0f} s"
        )
    total = f"{found.num_bytes / 1e6:,.1f} MB"
    if not found.num_objects:
        typer.echo("nothing to remove")
    elif delete:
        removed = sweep(objects, found)
        typer.echo(f"{removed} of {found.num_objects} objects removed, {total} were listed")
    else:
        typer.echo(f"{found.num_objects} objects, {total}; nothing was removed, give --delete")


@registry.command()
def export(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet")],
    form: Annotated[
        Form, typer.Option("--format", help="Who shall open it: open_clip, or transformers' CLIP")
    ] = Form.OPEN_CLIP,
    store: StoreUrl = None,
    block: Block = None,
) -> None:
    """Put the head's model into a folder that open_clip or transformers opens, all verified."""
    from tasks.store.export import export_head

    objects, convert = stored_at(store, block), None
    if form is Form.TRANSFORMERS:  # it takes seconds to come: only where it is asked for
        from transformers.utils.logging import disable_progress_bar

        from tasks.models.transformers_clip import export_transformers as convert

        disable_progress_bar()
    head = export_head(objects, name, folder, convert)
    typer.echo(f"{name}: {_told(objects, head)}")
    if form is Form.OPEN_CLIP:
        typer.echo(f'Open it: open_clip.create_model_and_transforms("local-dir:{folder}")')
    else:
        typer.echo(
            f'Open it: CLIPModel.from_pretrained("{folder}"), '
            f'CLIPProcessor.from_pretrained("{folder}", backend="pil")'
        )


def open_at(url: str | None, block: str | None = None) -> "ObjectStore":
    """The store of an address, or the default one; SettingsError for a bad address or block."""
    if block is not None:
        from flows.storage import sequence_store  # Prefect takes seconds: only where it is asked
        from tasks.sequence import StoreSettings

        return sequence_store(StoreSettings(url=url or ".gift/store", block=block))
    from tasks.store.address import open_store

    return open_store(url or ".gift/store")


def stored_at(url: str | None, block: str | None = None) -> "ObjectStore":
    """A store that somebody has stored in; SettingsError also where there is no such folder.

    An empty one would look whole to who has mistyped its name.
    """
    from tasks.store.objects import FolderStore

    objects = open_at(url, block)
    if isinstance(objects, FolderStore) and not objects.root.is_dir():
        raise SettingsError(
            f"store {objects.url}: there is no such folder; give --store the one that the "
            "sequence file names (without it: .gift/store), or make one with `gift run`"
        )
    return objects


def actor() -> str:
    """Who gives the command: user and host, as far as they are known."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def checked_reason(reason: str, option: str = "--reason") -> str:
    """The reason on one line; SettingsError naming the option when it is empty or endless."""
    words = " ".join(reason.split())
    if not 0 < len(words) <= _MAX_REASON:
        raise SettingsError(
            f"{option}: the reason has {len(words)} characters; give 1 to {_MAX_REASON}"
        )
    return words


def seconds_of(text: str) -> float:
    """The seconds of "7d", "12h", "30m" or "45s"; SettingsError for anything else."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if match is None:
        raise SettingsError(f"--older-than {text!r}: write a number and s, m, h or d, such as 7d")
    return float(int(match[1]) * _SECONDS[match[2]])


def _told(objects: "ObjectStore", entry: "HeadEntry") -> str:
    """One line for an entry: number, kind, task, time, model."""
    from tasks.manifests import ModelManifest
    from tasks.store.outputs import find_output

    manifest = find_output(objects, ModelManifest, *entry.model.output.split("/"))
    task = "model missing or damaged" if manifest is None else manifest.task or "pretrained"
    back = f" to {entry.restored}" if entry.restored else ""
    stage, key = entry.model.output.split("/")
    return f"{entry.number} {entry.kind}{back}, {task}, {one_line(entry.time)}, {stage}/{key[:16]}"


def _say(objects: "ObjectStore", name: str, entry: "HeadEntry | None") -> None:
    if entry is None:
        typer.echo(f"{name}: that model is the head already; nothing was added")
    else:
        typer.echo(f"{name}: {_told(objects, entry)}")
