"""Export: the model at a sequence's head as a folder that open_clip opens."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from gift_core.errors import SettingsError, StoreError
from tasks.manifests import ModelManifest
from tasks.scratch import scratch_folder
from tasks.store.heads import HeadEntry, head_of, list_sequences
from tasks.store.objects import ObjectStore
from tasks.store.outputs import fetch_output, find_output


def need_head(store: ObjectStore, sequence: str) -> HeadEntry:
    """Read the head of a sequence; SettingsError naming the known ones when there is none."""
    head = head_of(store, sequence)
    if head is None:
        known = ", ".join(list_sequences(store)) or "none yet"
        raise SettingsError(f"{sequence} has no head in {store.url}; sequences with one: {known}")
    return head


def need_sequence(store: ObjectStore, sequence: str) -> None:
    """SettingsError, naming the known ones, for a sequence with neither a head nor a report.

    One whose first model the gate refused has a report alone.
    """
    reported = {path.split("/")[1] for path in store.list("reports") if path.count("/") > 1}
    known = sorted({*list_sequences(store), *reported})
    if sequence not in known:
        raise SettingsError(
            f"no sequence {sequence} in {store.url}; sequences: {', '.join(known) or 'none yet'}"
        )


def export_head(
    store: ObjectStore,
    sequence: str,
    folder: Path,
    convert: Callable[[Path, Path], None] | None = None,
) -> HeadEntry:
    """Put the head's model into a new folder in `local-dir:` form, each file verified.

    `convert`, where it is given, makes another form of it, from one folder into another. The
    folder appears whole or not at all. Raises SettingsError when it is there and not empty or
    the sequence has no head, StoreError when the model is missing or altered, and what `convert`
    raises.
    """
    head = need_head(store, sequence)
    manifest = find_output(store, ModelManifest, *head.model.output.split("/"))
    if manifest is None or manifest.digest != head.model.digest:
        state = "is missing or damaged" if manifest is None else "was edited"
        raise StoreError(
            f"{store.url}/outputs/{head.model.output} {state}; run `gift verify`, then roll back "
            "or run the sequence again"
        )
    with new_folder(folder) as made:
        if convert is None:
            fetch_output(store, manifest, made)
        else:
            with scratch_folder() as fetched:
                fetch_output(store, manifest, fetched)
                convert(fetched, made)
    return head


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to fill, which then appears as `folder`, whole or not at all.

    Raises SettingsError when `folder` is there and not empty, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder} exists and is not an empty folder; name a new one")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            yield made
            made.chmod(0o755)
            made.replace(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise SettingsError(
            f"{folder}: cannot be written ({error.strerror}); name another folder"
        ) from None
