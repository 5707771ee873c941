"""Checkpoints of a stage under way, in the store: another worker can go on where one was lost.

    checkpoints/<stage>/<key>/latest.json              which file counts, its digest, the history
    checkpoints/<stage>/<key>/step-<number>.safetensors

The file is written first, `latest.json` last and in one step; then the file before is removed. A
finished stage removes both. They are no outputs: nothing names them, and nothing depends on them.
"""

import logging
from pathlib import Path

from pydantic import Field, ValidationError

from gift_core.errors import StoreError
from tasks.digests import sha256_of_file
from tasks.manifests import FileRef, Manifest, Record, canonical_json
from tasks.store.history import History
from tasks.store.objects import ObjectStore

logger = logging.getLogger(__name__)


class LatestCheckpoint(Record):
    """The step that a checkpoint was written after, its file, and the history up to it.

    `inputs` are the stage's: `gift gc` keeps what a stage under way works with.
    """

    step: int
    file: FileRef
    history: History
    inputs: dict[str, str] = Field(default_factory=dict)


class StepCheckpoints:
    """The checkpoints of the output that a manifest asks for."""

    def __init__(self, store: ObjectStore, manifest: Manifest) -> None:
        self._store = store
        self._inputs = manifest.inputs
        self.directory = f"checkpoints/{manifest.stage}/{manifest.key}"
        self.latest: LatestCheckpoint | None = None

    @property
    def place(self) -> str:
        """Where they are, for people."""
        return f"{self._store.url}/{self.directory}"

    def fetch(self, destination: Path) -> LatestCheckpoint | None:
        """Download the latest checkpoint, verified; None when there is none that can be trusted.

        One that is torn or altered is logged, and the work begins anew. Raises StoreError when the
        store cannot be reached.
        """
        where = f"{self.directory}/latest.json"
        if not self._store.exists(where):
            return None
        try:
            latest = LatestCheckpoint.model_validate_json(
                self._store.read_bytes(where), strict=True
            )
            if self._store.size(latest.file.path) != latest.file.num_bytes:
                raise StoreError(f"{latest.file.path} is missing or torn")
            self._store.fetch(latest.file.path, destination, latest.file.sha256)
        except (ValidationError, StoreError) as error:
            logger.warning("%s does not count, the stage begins anew: %s", self.place, error)
            return None
        self.latest = latest
        return latest

    def save(self, step: int, file: Path, history: History) -> None:
        """Put a checkpoint in place of the one before; the local file is removed."""
        ref = FileRef(
            path=f"{self.directory}/{file.name}",
            sha256=sha256_of_file(file),
            num_bytes=file.stat().st_size,
        )
        before = self.latest
        latest = LatestCheckpoint(step=step, file=ref, history=history, inputs=self._inputs)
        self._store.upload(ref.path, file)
        content = canonical_json(latest.model_dump(mode="json"))
        self._store.replace_bytes(f"{self.directory}/latest.json", content)
        self.latest = latest
        if before is not None and before.file.path != ref.path:
            self._store.delete(before.file.path)
        file.unlink()

    def remove(self) -> None:
        """Forget them: the stage's output stands."""
        for path in self._store.list(self.directory):
            self._store.delete(path)
