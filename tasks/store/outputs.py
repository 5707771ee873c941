"""Outputs of stages: kept under the digest of what decides them, with the manifest written last.

    outputs/<stage>/<key>/manifest.json                  the commit mark, created once
    outputs/<stage>/<key>/run.json                       how long it took and where
    outputs/<stage>/<key>/<digest of the files>/<file>   immutable

Two processes that make the same output write to the same names or, when their bytes differ, to
different folders; the first manifest decides, and the second process adopts it.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

import torch
from pydantic import ValidationError

from gift_core.errors import StoreError
from tasks.manifests import (
    SCHEMA_VERSION,
    FileRef,
    Json,
    Manifest,
    RunRecord,
    canonical_json,
    output_directory,
    output_key,
    sha256_hex,
)
from tasks.store.failures import altered
from tasks.store.objects import ObjectStore, checked_path

M = TypeVar("M", bound=Manifest)

LIBRARIES = (
    "torch", "open_clip_torch", "diffusers", "transformers", "pyarrow", "gift-continual",
)  # fmt: skip
RENEW_SECONDS = 600
_NUM_LAYOUT_PARTS = 4  # outputs/<stage>/<key>/<digest of the files>

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Produced(Generic[M]):
    """A stage's manifest, and whether the output was there already."""

    manifest: M
    reused: bool


def plan_output(
    kind: type[M],
    *,
    name: str,
    inputs: Mapping[str, str],
    settings: Json,
    seed: int = 0,
    **known: Any,  # noqa: ANN401 - the fields of `kind`
) -> M:
    """The manifest of an output before it is made: its key, and everything else that is known.

    `known` holds the fields of `kind` beyond those of every manifest; `stage` only where the kind
    serves several stages.
    """
    stage = known.pop("stage", None) or kind.model_fields["stage"].default
    return kind(
        stage=stage,
        name=name,
        key=output_key(stage, kind.REVISION, dict(inputs), settings, seed),
        inputs=dict(inputs),
        settings=settings,
        seed=seed,
        versions=library_versions(),
        **known,
    )


def run_output(
    store: ObjectStore,
    manifest: M,
    make: Callable[[Path], M | None],
    *,
    device: str = "cpu",
    scratch: Path | None = None,
    measured: Mapping[str, float] | None = None,
) -> Produced[M]:
    """Find the output that `manifest` asks for, or make it in an empty folder and commit it.

    `manifest` is complete but for its files and for what only the work tells; `make` fills the
    folder and returns the completed manifest, or None when there is nothing to complete. The
    folder lies in `scratch` (default: the system's) and is removed. `measured` is read after the
    work, for the run record: `make` may fill it. Raises StoreError, ValueError
    when `make` changed the key, and what `make` raises.
    """
    found = find_output(store, type(manifest), manifest.stage, manifest.key)
    if found is not None:
        _touch(store, found)
        return Produced(found, reused=True)
    started, clock = datetime.now(UTC), time.perf_counter()
    with TemporaryDirectory(prefix="gift-", dir=scratch) as folder:
        made = make(Path(folder)) or manifest
        if (made.stage, made.key) != (manifest.stage, manifest.key):
            raise ValueError(f"{manifest.stage}: make returned a manifest with another key")
        record = RunRecord(
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - clock, 3),
            device=device,
            num_threads=torch.get_num_threads(),
            measured=dict(measured or {}),
        )
        return Produced(commit_output(store, made, Path(folder), record), reused=False)


def _touch(store: ObjectStore, manifest: Manifest) -> None:
    """Write the run record anew, as it is, so that `gift gc` sees that the output is in use."""
    where = f"{manifest.directory}/run.json"
    written = store.modified(where)
    if written is not None and abs(time.time() - written) > RENEW_SECONDS:
        store.replace_bytes(where, store.read_bytes(where))


def find_output(store: ObjectStore, manifest_class: type[M], stage: str, key: str) -> M | None:
    """The manifest of a whole output; None when there is none or something of it is missing.

    What is wrong with an output that is there is logged. Sizes are compared, digests are left to
    those who read the files. Raises StoreError when the store cannot be reached.
    """
    where = f"{output_directory(stage, key)}/manifest.json"
    if not store.exists(where):
        return None
    try:
        manifest = manifest_class.model_validate_json(store.read_bytes(where), strict=True)
    except ValidationError as error:
        problem = "; ".join(f"{item['loc']}: {item['msg']}" for item in error.errors())
    else:
        problem = _problem(store, manifest, stage, key)
        if not problem:
            return manifest
    logger.warning("%s/%s does not count, the work is done again: %s", store.url, where, problem)
    return None


def _problem(store: ObjectStore, manifest: Manifest, stage: str, key: str) -> str:
    """What is wrong with a stored manifest, "" for nothing."""
    if manifest.schema_version != SCHEMA_VERSION:
        return (
            f"its schema_version is {manifest.schema_version}, this release reads {SCHEMA_VERSION}"
        )
    if (manifest.stage, manifest.key) != (stage, key):
        return f"it is that of {manifest.stage} {manifest.key}"
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


def commit_output(store: ObjectStore, manifest: M, local_dir: Path, record: RunRecord) -> M:
    """Store the files of a folder, the run record and last the manifest; what counts is returned.

    Files that `manifest` names already (objects of other outputs) stay in front. A valid manifest
    that another process committed meanwhile is adopted. Raises StoreError.
    """
    names = sorted(
        path.relative_to(local_dir).as_posix() for path in local_dir.rglob("*") if path.is_file()
    )
    digests = {name: _file_digest(local_dir / name) for name in names}
    content = sha256_hex(canonical_json(list(digests.items())))
    made = tuple(
        FileRef(
            path=f"{manifest.directory}/{content[:16]}/{name}",
            sha256=digests[name],
            num_bytes=(local_dir / name).stat().st_size,
        )
        for name in names
    )
    complete = manifest.model_copy(update={"files": manifest.files + made})
    for ref, name in zip(made, names, strict=True):
        _put_verified(store, ref, local_dir / name)
    store.replace_bytes(f"{manifest.directory}/run.json", _json(record))
    where = f"{manifest.directory}/manifest.json"
    if store.put_if_absent(where, _json(complete)):
        return complete
    adopted = find_output(store, type(manifest), manifest.stage, manifest.key)
    if adopted is None:
        store.replace_bytes(where, _json(complete))
        adopted = complete
    return adopted


def _put_verified(store: ObjectStore, ref: FileRef, source: Path) -> None:
    """Upload a file unless the store has it; one of equal size and other bytes is replaced."""
    if store.size(ref.path) == ref.num_bytes and _object_digest(store, ref.path) == ref.sha256:
        return
    store.upload(ref.path, source)


def read_verified(store: ObjectStore, ref: FileRef) -> bytes:
    """The bytes of a file of an output; StoreError when it is missing or altered."""
    data = store.read_bytes(ref.path)
    if (found := sha256_hex(data)) != ref.sha256:
        raise altered(f"{store.url}/{ref.path}", ref.sha256, found)
    return data


def fetch_verified(store: ObjectStore, ref: FileRef, destination: Path) -> None:
    """Download a file of an output; nothing appears, and StoreError, when missing or altered."""
    store.fetch(ref.path, destination, ref.sha256)


def fetch_output(store: ObjectStore, manifest: Manifest, destination_dir: Path) -> None:
    """Download every file of an output in the layout that it was made in; StoreError otherwise."""
    names = [relative_name(ref) for ref in manifest.files]
    if len(set(names)) != len(names):
        raise StoreError(
            f"{store.url}/{manifest.directory} joins files of equal names; read them one by one"
        )
    for ref, name in zip(manifest.files, names, strict=True):
        fetch_verified(store, ref, destination_dir / name)


def relative_name(ref: FileRef) -> str:
    """The name of a file below the folder that its stage made it in."""
    parts = ref.path.split("/")
    return "/".join(parts[_NUM_LAYOUT_PARTS:]) or ref.name


def read_run_record(store: ObjectStore, manifest: Manifest) -> RunRecord | None:
    """How the output was made; None when nobody knows, StoreError when the store is gone."""
    where = f"{manifest.directory}/run.json"
    if not store.exists(where):
        return None
    try:
        return RunRecord.model_validate_json(store.read_bytes(where), strict=True)
    except ValidationError as error:
        logger.warning("%s/%s is ignored: %s", store.url, where, error.errors()[0]["msg"])
        return None


def library_versions() -> dict[str, str]:
    """The versions of the libraries that can change an output's bytes."""
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


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
