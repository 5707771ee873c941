"""Outputs of stages: kept under the digest of what decides them, with the manifest written last.

    outputs/<stage>/<key>/manifest.json                  the commit mark, created once
    outputs/<stage>/<key>/run.json                       how long it took and where
    outputs/<stage>/<key>/<digest of the files>/<file>   immutable

Two processes that make the same output write to the same names or, when their bytes differ, to
different folders; the first manifest decides, and the second process adopts it. So it is when they
repair an output that no longer counts: one manifest is put in place of it, by compare-and-swap.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from gift_core.errors import StoreError
from tasks.manifests import (
    FileRef,
    Json,
    Manifest,
    RunRecord,
    output_directory,
    output_key,
    sha256_hex,
)
from tasks.scratch import scratch_folder
from tasks.store.commits import commit_output, judged, manifest_path
from tasks.store.failures import altered
from tasks.store.objects import ObjectStore

M = TypeVar("M", bound=Manifest)

LIBRARIES = (
    "torch", "open_clip_torch", "diffusers", "transformers", "pyarrow", "gift-continual",
)  # fmt: skip
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

    What `make_output` does, and then at once what it leaves to be done. Raises what both raise.
    """
    given = store, manifest, make
    return make_output(*given, device=device, scratch=scratch, measured=measured)()


def make_output(
    store: ObjectStore,
    manifest: M,
    make: Callable[[Path], M | None],
    *,
    device: str = "cpu",
    scratch: Path | None = None,
    measured: Mapping[str, float] | None = None,
) -> Callable[[], Produced[M]]:
    """Find the output that `manifest` asks for, or make it; what is returned commits it.

    `manifest` is complete but for its files and for what only the work tells; `make` fills an empty
    folder and returns the completed manifest, or None when there is nothing to complete. The
    folder lies in `scratch` (default: the system's) and is removed by the commit, which is called
    once, from any thread, and raises StoreError. `measured` is read after the work, for the run
    record: `make` may fill it. Raises StoreError, ValueError when `make` changed the key, and what
    `make` raises.
    """
    found = find_planned(store, manifest)
    if found is not None:
        return lambda: found
    import torch  # takes a second: only where there is work

    started, clock = datetime.now(UTC), time.perf_counter()
    with ExitStack() as cleaning:
        folder = cleaning.enter_context(scratch_folder(scratch))
        made = make(folder) or manifest
        if (made.stage, made.key) != (manifest.stage, manifest.key):
            raise ValueError(f"{manifest.stage}: make returned a manifest with another key")
        record = RunRecord(
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - clock, 3),
            device=device,
            num_threads=torch.get_num_threads(),
            measured=dict(measured or {}),
        )
        until_committed = cleaning.pop_all()

    def commit() -> Produced[M]:
        with until_committed:
            return Produced(commit_output(store, made, folder, record), reused=False)

    return commit


def find_planned(store: ObjectStore, manifest: M) -> Produced[M] | None:
    """The output that a planned manifest asks for, if it stands, marked as in use; else None."""
    found = find_output(store, type(manifest), manifest.stage, manifest.key)
    if found is None or not _touch(store, found):
        return None
    return Produced(found, reused=True)


def _touch(store: ObjectStore, manifest: M) -> bool:
    """Write the run record anew, as it is, so that `gift gc` sees that the output is in use.

    Always, because nobody knows here what time it is at the store. False when the output was
    removed meanwhile: a sweep that sees the touch puts the manifest back, one that does not has
    removed it before.
    """
    where = f"{manifest.directory}/run.json"
    found = store.read_versioned(where)
    store.replace_bytes(where, found[0] if found else b"{}\n")
    return store.exists(manifest_path(manifest))


def find_output(store: ObjectStore, manifest_class: type[M], stage: str, key: str) -> M | None:
    """The manifest of a whole output; None when there is none or something of it is missing.

    What is wrong with an output that is there is logged. Sizes are compared, digests are left to
    those who read the files. Raises StoreError when the store cannot be reached.
    """
    where = f"{output_directory(stage, key)}/manifest.json"
    found = store.read_versioned(where)
    if found is None:
        return None
    manifest, problem = judged(store, found[0], manifest_class, stage, key)
    if manifest is None:
        logger.warning(
            "%s/%s does not count, the work is done again: %s", store.url, where, problem
        )
    return manifest


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


@cache
def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
