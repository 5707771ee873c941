"""Committing an output: its run record, its files and last its manifest, of which one stands."""

import hashlib
import secrets
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from gift_core.errors import StoreError
from tasks.manifests import (
    SCHEMA_VERSION,
    FileRef,
    Manifest,
    RunRecord,
    canonical_json,
    folder_name,
)
from tasks.store.objects import ObjectStore, checked_path

M = TypeVar("M", bound=Manifest)

MAX_REPAIRS = 20
"""Times in a row that others may change a manifest which does not count, before it is told."""


def commit_output(store: ObjectStore, manifest: M, local_dir: Path, record: RunRecord) -> M:
    """Store the run record, the files of a folder and last the manifest; what counts is returned.

    Files that `manifest` names already (objects of other outputs) stay in front. A valid manifest
    that another process committed meanwhile is adopted. Raises StoreError.
    """
    names = sorted(
        path.relative_to(local_dir).as_posix() for path in local_dir.rglob("*") if path.is_file()
    )
    digests = {name: _file_digest(local_dir / name) for name in names}
    folder = folder_name(list(digests.items()))
    made = tuple(
        FileRef(
            path=f"{manifest.directory}/{folder}/{name}",
            sha256=digests[name],
            num_bytes=(local_dir / name).stat().st_size,
        )
        for name in names
    )
    complete = manifest.model_copy(update={"files": manifest.files + made})
    _void(store, manifest)
    # The record comes first: `gift gc` then leaves files of a lost run that are about to be used.
    store.replace_bytes(f"{manifest.directory}/run.json", _json(record))
    for ref, name in zip(made, names, strict=True):
        _put_verified(store, ref, local_dir / name)
    return _settle(store, complete)


def _void(store: ObjectStore, manifest: Manifest) -> None:
    """Put words of its own in place of a manifest that does not count, and that is no such words.

    Otherwise the files that are about to be stored could make it count again, for one process and
    not for the other that looked before. The words hold what they replace: whoever looked too long
    ago voids a manifest that another has just made whole, and then all who meet the words see that
    it counts, and put it back.
    """
    where = manifest_path(manifest)
    found = store.read_versioned(where)
    if found is None or _voided(found[0]) is not None:
        return
    if judged(store, found[0], type(manifest), manifest.stage, manifest.key)[0] is None:
        words = _Void(void=secrets.token_hex(8), manifest=found[0].decode(errors="replace"))
        store.compare_and_swap(where, canonical_json(words.model_dump()), found[1])


def _settle(store: ObjectStore, complete: M) -> M:
    """Create the manifest, or replace one that does not count; what stands in the end is returned.

    Only voided ones are replaced: no two of them are equal, so what was judged is what goes. A
    refusal may be the echo of the own success: then what stands is the own manifest.
    """
    where, content = manifest_path(complete), _json(complete)
    for _ in range(MAX_REPAIRS):
        if store.put_if_absent(where, content):
            return complete
        found = store.read_versioned(where)
        if found is None:
            continue
        before = _voided(found[0])
        standing = found[0] if before is None else before
        whole = judged(store, standing, type(complete), complete.stage, complete.key)[0]
        if before is None:
            if whole is not None:
                return whole
            _void(store, complete)
        elif store.compare_and_swap(where, content if whole is None else before, found[1]):
            return whole or complete
    raise StoreError(
        f"{store.url}/{where} was changed {MAX_REPAIRS} times meanwhile and never counted; "
        "see who else writes there, then run again"
    )


class _Void(BaseModel):
    """What stands in place of a manifest that did not count."""

    model_config = ConfigDict(extra="forbid")

    void: str
    manifest: str


def _voided(data: bytes) -> bytes | None:
    """The manifest that words stand for; None when the bytes are no such words."""
    try:
        return _Void.model_validate_json(data, strict=True).manifest.encode()
    except ValidationError:
        return None


def _put_verified(store: ObjectStore, ref: FileRef, source: Path) -> None:
    """Upload a file unless the store has it; one of equal size and other bytes is replaced."""
    if store.size(ref.path) == ref.num_bytes and _object_digest(store, ref.path) == ref.sha256:
        return
    store.upload(ref.path, source)


def manifest_path(manifest: Manifest) -> str:
    """Where the manifest of an output stands."""
    return f"{manifest.directory}/manifest.json"


def judged(
    store: ObjectStore, data: bytes, manifest_class: type[M], stage: str, key: str
) -> tuple[M | None, str]:
    """The manifest that stored bytes are when it counts, else what is wrong with it."""
    try:
        manifest = manifest_class.model_validate_json(data, strict=True)
    except ValidationError as error:
        return None, "; ".join(f"{item['loc']}: {item['msg']}" for item in error.errors())
    problem = _problem(store, manifest, stage, key)
    return (None, problem) if problem else (manifest, "")


def _problem(store: ObjectStore, manifest: Manifest, stage: str, key: str) -> str:
    """What is wrong with a stored manifest, "" for nothing."""
    if manifest.schema_version != SCHEMA_VERSION:
        return (
            f"its schema_version is {manifest.schema_version}, this release reads {SCHEMA_VERSION}"
        )
    if (manifest.stage, manifest.key) != (stage, key):
        return f"it is that of {manifest.stage} {manifest.key}"
    if not manifest.key_follows:
        return "its key does not follow from inputs, settings and seed"
    if not manifest.folder_follows:
        return "the folder of its files is not named by their digests"
    for ref in manifest.files:
        try:
            checked_path(ref.path)
        except StoreError as error:
            return str(error)
        num_bytes = store.size(ref.path)
        if num_bytes != ref.num_bytes:
            found = "is missing" if num_bytes is None else f"has {num_bytes} bytes"
            return f"{ref.path} {found}, expected {ref.num_bytes} bytes"
    return ""


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _object_digest(store: ObjectStore, path: str) -> str:
    digest = hashlib.sha256()
    for chunk in store.read_chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def _json(record: Manifest | RunRecord) -> bytes:
    return canonical_json(record.model_dump(mode="json")) + b"\n"
