"""Verification: everything that heads, reports and manifests reach, hashed anew."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gift_core.errors import StoreError
from tasks.manifests import FileRef
from tasks.store.inventory import Damage, Inventory, StoredOutput, lineages, take_inventory
from tasks.store.objects import ObjectStore


@dataclass(frozen=True)
class Verification:
    """What was looked at, and what of it cannot be trusted."""

    num_outputs: int
    num_files: int
    num_bytes: int
    num_entries: int
    damages: tuple[Damage, ...]


def verify_store(
    store: ObjectStore, watched: Callable[[list[FileRef]], Iterable[FileRef]] = iter
) -> Verification:
    """Hash every file and follow every reference; StoreError when the store cannot be reached.

    `watched` hands the files on one by one as they are hashed: what shows progress stands there.
    """
    inventory = take_inventory(store)
    damages = list(inventory.damages)
    unreadable = {damage.path for damage in damages}
    files: dict[FileRef, str] = {}
    for reference, output in inventory.outputs.items():
        damages += _problems(inventory, output)
        for ref in output.manifest.files:
            files.setdefault(ref, reference)
    for words, named in _named(inventory):
        for reference, digest in named.items():
            path = f"outputs/{reference}/manifest.json"
            if path not in unreadable and (wrong := _wrong(inventory, reference, digest, words)):
                damages.append(Damage(path, wrong))
    for ref in watched(list(files)):
        if problem := _file_problem(store, ref):
            damages.append(Damage(ref.path, f"{problem}, says the manifest of {files[ref]}"))
    return Verification(
        num_outputs=len(inventory.outputs),
        num_files=len(files),
        num_bytes=sum(ref.num_bytes for ref in files),
        num_entries=sum(len(history) for history in inventory.histories.values()),
        damages=tuple(dict.fromkeys(damages)),
    )


def _named(inventory: Inventory) -> Iterator[tuple[str, dict[str, str]]]:
    for words, named in lineages(inventory):
        yield words, dict(named)
    for reference, output in inventory.outputs.items():
        yield f"outputs/{reference}", output.named_outputs
    for name, view in inventory.views.items():
        yield f"reports/{name}/sequence.json", {view.reference: view.digest}


def _problems(inventory: Inventory, output: StoredOutput) -> Iterator[Damage]:
    path = f"outputs/{output.reference}/manifest.json"
    if not output.manifest.key_follows:
        yield Damage(path, "it was edited: its key does not follow from inputs, settings and seed")
    if not output.manifest.folder_follows:
        yield Damage(path, "it was edited: the folder of its files is not named by their digests")
    for role, digest in output.named_digests.items():
        if digest not in inventory.by_digest:
            yield Damage(path, f"its {role}, manifest {digest[:12]}, is missing or was edited")


def _wrong(inventory: Inventory, reference: str, digest: str, words: str) -> str:
    output = inventory.outputs.get(reference)
    if output is None:
        return f"it is missing, but {words} names it"
    if output.digest != digest:
        return f"it was edited: its digest is {output.digest[:12]}, {words} says {digest[:12]}"
    return ""


def _file_problem(store: ObjectStore, ref: FileRef) -> str:
    """What is wrong with a file, "" for nothing."""
    size = store.size(ref.path)
    if size is None:
        return "it is missing"
    if size != ref.num_bytes:
        return f"it has {size} bytes, not {ref.num_bytes}"
    digest = hashlib.sha256()
    try:
        for chunk in store.read_chunks(ref.path):
            digest.update(chunk)
    except StoreError as error:
        return str(error)
    if digest.hexdigest() != ref.sha256:
        return f"its SHA-256 is {digest.hexdigest()[:12]}, not {ref.sha256[:12]}"
    return ""
