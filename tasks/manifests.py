"""Everything that crosses from one stage to another: small frozen records, written as JSON.

A manifest is a stage's commit mark: it is written last, names every file of the output with its
size and SHA-256, and holds no time, host or path of a machine, so equal inputs give equal bytes.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from gift_core.gate import Failure
from gift_core.settings import added
from tasks.records import Adapted, BlockDrift, Record, Rejects, Retrieval, Score

SCHEMA_VERSION = 1
Json = dict[str, Any]
OutputReference = Annotated[str, Field(pattern=r"^[a-z-]+/[0-9a-f]{64}$")]


class FileRef(Record):
    """One immutable object of the store: its path below the store's root, size and digest."""

    path: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    num_bytes: int = Field(ge=0)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]


class Manifest(Record):
    """What every stage's manifest holds; `stage` tells which of the classes below it is.

    `key` is the digest of everything that decides the output (stage, revision, inputs, settings,
    seed) and is known before the work starts; `digest` is the digest of the manifest itself.
    """

    REVISION: ClassVar[int] = 1
    """Raise it when a stage's code changes what equal inputs give: old outputs are then redone."""

    schema_version: int = SCHEMA_VERSION
    stage: str
    name: str
    key: str = Field(pattern=r"^[0-9a-f]{64}$")
    inputs: dict[str, str]
    settings: Json
    seed: int
    versions: dict[str, str]
    files: tuple[FileRef, ...] = ()

    @field_validator("settings")
    @classmethod
    def _settings_are_json(cls, settings: Json) -> Json:
        canonical_json(settings)  # ValueError for what has no digest: NaN, endless numbers
        return settings

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: equal for equal content."""
        return sha256_hex(canonical_json(self.model_dump(mode="json")))

    @property
    def directory(self) -> str:
        """Where this stage's output lives below the store's root."""
        return output_directory(self.stage, self.key)

    @property
    def key_follows(self) -> bool:
        """Whether the key is one that this release or those before it gave to such an output."""
        return self.key in (
            output_key(self.stage, revision, self.inputs, self.settings, self.seed)
            for revision in range(1, self.REVISION + 1)
        )

    @property
    def folder_follows(self) -> bool:
        """Whether the folder of the output's own files is named by their names and digests."""
        own: dict[str, list[tuple[str, str]]] = {}
        for ref in self.files:
            if ref.path.startswith(f"{self.directory}/"):
                folder, _, name = ref.path.removeprefix(f"{self.directory}/").partition("/")
                own.setdefault(folder, []).append((name, ref.sha256))
        return all(folder == folder_name(files) for folder, files in own.items()) and len(own) < 2

    def file(self, name: str) -> FileRef:
        """The file with this last path part; KeyError when the manifest has none."""
        for ref in self.files:
            if ref.name == name:
                return ref
        raise KeyError(f"{self.stage} {self.key[:12]} has no file {name}")


class BatchSizeManifest(Manifest):
    """How many pictures a generator makes a call, where that was left to be found."""

    stage: Literal["batch-size"] = "batch-size"
    batch_size: int = Field(ge=1)


class ShardManifest(Manifest, Rejects):
    """One Parquet shard of replay pairs: pairs `start` to `start + num_pairs - 1` of a task."""

    stage: Literal["synthesize-shard"] = "synthesize-shard"
    start: int = Field(ge=0)
    num_pairs: int = Field(ge=0)


class PairsManifest(Manifest, Rejects, Adapted):
    """The replay pairs made before one task is learnt; `files` are the shards, in order."""

    stage: Literal["synthesize"] = "synthesize"
    task: str
    generator: str
    num_pairs: int = Field(ge=0)
    prompts_sha256: str


class ModelManifest(Manifest):
    """A model in open_clip's `local-dir:` form, and how its training went.

    `task` is None for theta_0, else the task just learnt; `parent` is the digest of the manifest
    of the model that it started from.
    """

    REVISION: ClassVar[int] = 2

    stage: Literal["pretrained", "finetune"]
    architecture: str
    parent: str | None
    task: str | None
    num_steps: int = Field(ge=0)


class AdapterManifest(Manifest):
    """A LoRA of the generator, learnt on images of a task; it makes the pictures of its `prompts`.

    `model` is the digest of the model that chose the images, num_images of them.
    """

    stage: Literal["adapt"] = "adapt"
    task: str
    model: str
    prompts: tuple[str, ...]
    num_images: int = Field(ge=0)


class FisherManifest(Manifest):
    """The Fisher diagonal of a new model on the replay pairs, with the drift by block.

    `pairs` is None where it was estimated on real pictures, for EWC.
    """

    REVISION: ClassVar[int] = 2

    stage: Literal["estimate-fisher"] = "estimate-fisher"
    model: str
    pairs: str | None
    drift: tuple[BlockDrift, ...]


class ScoreManifest(Manifest):
    """A model on one data set; its file holds the answer to each image."""

    stage: Literal["score"] = "score"
    model: str
    score: Score


class RetrievalManifest(Manifest):
    """A model on the replay pairs of the task just learnt; its file holds what each one finds."""

    stage: Literal["retrieve"] = "retrieve"
    model: str
    pairs: str
    retrieval: Retrieval


class ScoresManifest(Manifest):
    """One row of the accuracy matrix: a model on every task of the sequence and on the panel.

    `files` are those of the scores and of the retrieval that it joins. `retrieval` is None where
    there are no pairs.
    """

    REVISION: ClassVar[int] = 2

    stage: Literal["evaluate"] = "evaluate"
    model: str
    after_task: str | None
    tasks: tuple[Score, ...]
    panel: tuple[Score, ...]
    retrieval: Retrieval | None = added(None)


PART_OF = {
    "batch-size": "synthesize",
    "synthesize-shard": "synthesize",
    "score": "evaluate",
    "retrieve": "evaluate",
}
"""Outputs that are parts of another stage's output, found and made one by one."""


class SequenceManifest(Manifest):
    """A whole run: every output of it, and the metrics that follow from the rows.

    `models` (theta_0 first), `pairs`, `fishers`, `scores` (the zero-shot row first) and `adapters`
    are references "<stage>/<key>", so that each is found in the store; `inputs` has their digests.
    `classes_seen` is the accuracy over the classes of all tasks seen, after each task; empty where
    nobody measured it. `refused` says why the gate stopped the sequence after the last of `tasks`,
    if it did. `keeps_old_data` says that images of other tasks were used, which the setting
    forbids.
    """

    stage: Literal["report"] = "report"
    method: str
    tasks: tuple[str, ...]
    models: tuple[OutputReference, ...]
    pairs: tuple[OutputReference, ...]
    fishers: tuple[OutputReference, ...]
    scores: tuple[OutputReference, ...]
    zero_shot: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    panel: dict[str, tuple[float, ...]]
    metrics: dict[str, float | None]
    classes_seen: tuple[float, ...] = added(())
    adapters: tuple[OutputReference, ...] = added(())
    refused: tuple[Failure, ...] = ()
    keeps_old_data: bool = added(False)

    @model_validator(mode="after")
    def _is_a_matrix(self) -> Self:
        num_tasks, num_rows = len(self.tasks), len(self.matrix) + 1
        widths = {len(row) for row in (self.zero_shot, *self.matrix)}
        heights = {len(column) for column in self.panel.values()} | {len(self.scores)}
        if self.classes_seen:
            heights.add(len(self.classes_seen) + 1)
        if len(set(self.tasks)) < num_tasks or num_rows != num_tasks + 1:
            raise ValueError("needs one row for each task, and each task once")
        if widths != {num_tasks} or heights != {num_rows}:
            raise ValueError("its rows and columns are not of one length")
        return self


class RunRecord(Record):
    """How long an output took to make and where; kept beside the manifest, outside its digest.

    `measured` is what else a stage noted, by a name that says the unit.
    """

    started: str
    seconds: float
    device: str
    num_threads: int
    measured: dict[str, float] = Field(default={})


def sha256_hex(data: bytes) -> str:
    """SHA-256 of bytes as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """JSON with sorted keys and no spaces, ASCII only, so that equal values are equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def output_key(stage: str, revision: int, inputs: dict[str, str], settings: Json, seed: int) -> str:
    """The name of an output before it exists: the digest of everything that decides it."""
    decided_by = {
        "schema_version": SCHEMA_VERSION,
        "stage": stage,
        "revision": revision,
        "inputs": inputs,
        "settings": settings,
        "seed": seed,
    }
    return sha256_hex(canonical_json(decided_by))


def folder_name(files: Sequence[tuple[str, str]]) -> str:
    """The folder that an output's own files lie in: from the names and digests, names in order."""
    return sha256_hex(canonical_json(files))[:16]


def output_directory(stage: str, key: str) -> str:
    """Where the output of a stage with this key lives below the store's root."""
    return f"outputs/{stage}/{key}"
