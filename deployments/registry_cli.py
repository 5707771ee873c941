"""Commands over a store: heads, their history, moving them, verifying, sweeping, exporting."""

import getpass
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gift_core.errors import SettingsError

if TYPE_CHECKING:
    from tasks.store.heads import HeadEntry
    from tasks.store.objects import ObjectStore

registry = typer.Typer()

StoreUrl = Annotated[
    str | None, typer.Option("--store", help="A folder or s3://bucket/prefix (.gift/store)")
]
Name = Annotated[str, typer.Argument(help="Name of a sequence")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the history")]
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_REASON = 500


@registry.command()
def status(store: StoreUrl = None) -> None:
    """List the sequences of a store with their heads: task, time, model."""
    from tasks.store.heads import head_of, list_sequences

    objects = open_at(store)
    names = list_sequences(objects)
    for name in names:
        head = head_of(objects, name)
        if head is not None:
            typer.echo(f"{name}: {_told(objects, head)}")
    if not names:
        typer.echo(f"no sequence of {objects.url} has a head yet; `gift run` promotes models")


@registry.command()
def log(name: Name, store: StoreUrl = None) -> None:
    """Print what the head of a sequence was, newest first: when, why, by whom."""
    from tasks.store.export import need_head
    from tasks.store.heads import chain

    objects = open_at(store)
    for entry in chain(objects, need_head(objects, name)):
        typer.echo(_told(objects, entry))
        typer.echo(f"    by {plain(entry.actor)}: {plain(entry.reason) or 'no reason given'}")
        for failure in entry.verdict.failures if entry.verdict else ():
            typer.echo(f"    against the gate: {plain(str(failure))}")


@registry.command()
def promote(
    name: Name,
    model: Annotated[str, typer.Argument(help="finetune/KEY; the key's beginning is enough")],
    reason: Reason,
    store: StoreUrl = None,
) -> None:
    """Make a model of the store the head of a sequence, without asking the gate."""
    from tasks.store import registry as heads
    from tasks.store.inventory import candidate_of, find_model, take_inventory

    objects = open_at(store)
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
) -> None:
    """Make an earlier model the head again; the history says so and keeps what was."""
    from tasks.store import registry as heads

    objects = open_at(store)
    entry = heads.rollback(objects, name, to=to, reason=checked_reason(reason), actor=actor())
    _say(objects, name, entry)


@registry.command()
def verify(store: StoreUrl = None) -> None:
    """Hash everything anew that heads, reports and manifests reach; exit code 1 for damage."""
    from tasks.store.verify import verify_store

    objects = open_at(store)
    found = verify_store(objects)
    for damage in found.damages:
        typer.echo(f"{damage.path}: {damage.problem}")
    typer.echo(
        f"{found.num_outputs} outputs, {found.num_files} files, {found.num_bytes / 1e6:,.1f} MB, "
        f"{found.num_entries} entries of heads: "
        + (f"{len(found.damages)} damaged" if found.damages else "all as they were stored")
    )
    if found.damages:
        raise typer.Exit(1)


@registry.command()
def gc(
    store: StoreUrl = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; else only list it")] = False,
    older_than: Annotated[
        str, typer.Option(help="Spare what was written or used within this time: 7d, 12h, 30m")
    ] = "7d",
) -> None:
    """List what no head, no report and no running stage reaches; remove it with --delete."""
    from tasks.store.sweep import find_unreferenced, sweep

    objects, seconds = open_at(store), seconds_of(older_than)
    found = find_unreferenced(objects, seconds)
    for each in found:
        typer.echo(f"{each.what}: {len(each.paths)} objects, {each.num_bytes / 1e6:,.1f} MB")
    total = f"{sum(each.num_bytes for each in found) / 1e6:,.1f} MB"
    num_objects = sum(len(each.paths) for each in found)
    if not found:
        typer.echo("nothing to remove")
    elif delete:
        removed = sweep(objects, found, seconds)
        typer.echo(f"{removed} of {num_objects} objects removed, {total} were listed")
    else:
        typer.echo(f"{num_objects} objects, {total}; nothing was removed, give --delete to do it")


@registry.command()
def export(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet")],
    store: StoreUrl = None,
) -> None:
    """Put the head's model into a folder that open_clip opens, every file verified."""
    from tasks.store.export import export_head

    objects = open_at(store)
    head = export_head(objects, name, folder)
    typer.echo(f"{name}: {_told(objects, head)}")
    typer.echo(f'Open it: open_clip.create_model_and_transforms("local-dir:{folder}")')


def open_at(url: str | None) -> "ObjectStore":
    """The store of an address, or the default one; SettingsError for a bad address."""
    from tasks.store.address import open_store

    return open_store(url or ".gift/store")


def actor() -> str:
    """Who gives the command: user and host, as far as they are known."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def checked_reason(reason: str) -> str:
    """The reason on one line; SettingsError when it is empty or endless."""
    words = " ".join(reason.split())
    if not 0 < len(words) <= _MAX_REASON:
        raise SettingsError(f"the reason has {len(words)} characters; give 1 to {_MAX_REASON}")
    return words


def seconds_of(text: str) -> float:
    """The seconds of "7d", "12h", "30m" or "45s"; SettingsError for anything else."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if match is None:
        raise SettingsError(f"--older-than {text!r}: write a number and s, m, h or d, such as 7d")
    return float(int(match[1]) * _SECONDS[match[2]])


def plain(text: str) -> str:
    """Text from a store, without what a terminal would act on."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _told(objects: "ObjectStore", entry: "HeadEntry") -> str:
    """One line for an entry: number, kind, task, time, model."""
    from tasks.manifests import ModelManifest
    from tasks.store.outputs import find_output

    manifest = find_output(objects, ModelManifest, *entry.model.output.split("/"))
    task = "model missing or damaged" if manifest is None else manifest.task or "pretrained"
    back = f" to {entry.restored}" if entry.restored else ""
    stage, key = entry.model.output.split("/")
    return f"{entry.number} {entry.kind}{back}, {task}, {plain(entry.time)}, {stage}/{key[:16]}"


def _say(objects: "ObjectStore", name: str, entry: "HeadEntry | None") -> None:
    if entry is None:
        typer.echo(f"{name}: that model is the head already; nothing was added")
    else:
        typer.echo(f"{name}: {_told(objects, entry)}")
