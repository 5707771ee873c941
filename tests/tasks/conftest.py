"""A made-up run in a store: every kind of output that a report is drawn from, without training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tasks import progress
from tasks.manifests import (
    BlockDrift,
    FisherManifest,
    Manifest,
    ModelManifest,
    PairsManifest,
    Score,
    ScoresManifest,
    ShardManifest,
    canonical_json,
    output_key,
)
from tasks.sequence import SequenceSettings
from tasks.store.objects import FolderStore, ObjectStore
from tasks.store.outputs import run_output
from tasks.store.shards import ReplayPair, write_shard
from tests.worlds import png, square

NUM_IMAGES = 400


@dataclass(frozen=True)
class MadeUpRun:
    """What the stages of a sequence would have handed to the report."""

    store: ObjectStore
    sequence: SequenceSettings
    models: tuple[ModelManifest, ...]
    pairs: tuple[PairsManifest, ...]
    fishers: tuple[FisherManifest, ...]
    scores: tuple[ScoresManifest, ...]

    @property
    def arguments(self) -> tuple[object, ...]:
        """The arguments of the stage report."""
        return (
            self.store,
            self.sequence,
            self.models,
            self.pairs,
            self.fishers,
            self.scores,
        )


def made_up_run(
    store: ObjectStore,
    name: str = "little",
    tasks: Sequence[str] = ("digits", "photos", "sketches"),
    method: str = "gift",
    class_names: Sequence[str] = ("one", "two"),
    baseline: str | None = None,
    num_pairs: int = 10,
) -> MadeUpRun:
    """Commit a whole run with plausible numbers; replay only where the method has it."""
    sequence = SequenceSettings.model_validate(
        {
            "name": name,
            "method": method,
            "seed": 3,
            "model": {"architecture": "local-dir:deployments/miniature/clip"},
            "pretraining": {"class_names": ["red circle", "blue star"]},
            "tasks": [
                {
                    "name": task,
                    "data": {"kind": "parquet", "path": f"data/{task}"},
                    "class_names": class_names,
                }
                for task in tasks
            ],
            "panel": [{"name": "held-out", "data": {"kind": "parquet", "path": "data/held-out"}}],
            "baseline": baseline,
        }
    )
    theta_0 = _model(store, method, None, None)
    models, pairs, fishers = [theta_0], [], []
    for number, task in enumerate(tasks):
        if method == "gift":
            prompts = [
                f"a photo of a {class_names[n % len(class_names)]}." for n in range(num_pairs)
            ]
            pairs.append(_pairs(store, task, prompts))
        made = pairs[-1].digest if pairs else None
        models.append(_model(store, method, task, models[-1], number, made))
        if pairs:
            fishers.append(_fisher(store, models[-1], pairs[-1], number))
    rows = _accuracies(len(tasks), 0.5 if method == "gift" else 14.0)
    scores = [_scores(store, model, tasks, row) for model, row in zip(models, rows, strict=True)]
    return MadeUpRun(store, sequence, tuple(models), tuple(pairs), tuple(fishers), tuple(scores))


def history(num_steps: int, seed: int = 0, replays: bool = True) -> dict[str, list[float | None]]:
    """Loss curves as training leaves them; without replay its columns are zero or None."""
    generator = np.random.Generator(np.random.PCG64(seed))
    noise = generator.normal(0, 0.04, num_steps)
    falling = [math.exp(-step / (0.2 * num_steps)) for step in range(num_steps)]
    grown = [0.02 * (1 - value) if replays else 0.0 for value in falling]
    return {
        "step": list(range(1, num_steps + 1)),
        "task_loss": [1.1 + 1.6 * f + n for f, n in zip(falling, noise, strict=True)],
        "distillation_loss": [
            2.2 + 2 * g + n / 3 if replays else 0.0 for g, n in zip(grown, noise, strict=True)
        ],
        "alignment_loss": [0.9 + 0.5 * f if replays else 0.0 for f in falling],
        "consolidation_loss": list(grown),
        "learning_rate": [1e-3 * f for f in falling],
        "gradient_norm": [3.0 + f for f in falling],
        "task_accuracy": [
            min(100.0, 96 - 70 * f + 50 * n) for f, n in zip(falling, noise, strict=True)
        ],
        "replay_accuracy": [88.0 + 40 * n if replays else None for n in noise],
    }


def _model(
    store: ObjectStore,
    method: str,
    task: str | None,
    parent: ModelManifest | None,
    seed: int = 0,
    pairs: str | None = None,
) -> ModelManifest:
    inputs = {"parent": parent.digest, "data": "d" * 64} if parent else {"model": "a" * 64}
    inputs |= {"pairs": pairs} if pairs else {}
    stage = "finetune" if parent else "pretrained"
    manifest = ModelManifest(
        **_base(stage, task or "pretrained", inputs, {"method": method} if parent else {}),
        stage=stage,
        architecture="a" * 64,
        parent=parent.digest if parent else None,
        task=task,
        num_steps=120 if parent else 0,
    )

    def make(directory: Path) -> None:
        (directory / "open_clip_model.safetensors").write_bytes(bytes(2_000_000))
        if task:
            columns = history(120, seed, method == "gift")
            (directory / "history.json").write_bytes(canonical_json(columns))

    return run_output(store, manifest, make).manifest


def _pairs(store: ObjectStore, task: str, prompts: Sequence[str]) -> PairsManifest:
    shards = []
    for start in range(0, len(prompts), 8):
        part = prompts[start : start + 8]
        base = _base(
            "synthesize-shard", f"{task}-{start}", {"generator": "g"}, {"prompts": list(part)}
        )
        shard = ShardManifest(**base, start=start, num_pairs=len(part), num_rejected=0)
        made = [
            ReplayPair(
                image_bytes=png(square(("red", "green", "blue")[(start + n) % 3], start + n)),
                prompt=prompt,
                seed=100_000 + start + n,
                generator="generator@1234",
                task=task,
                index=start + n,
            )
            for n, prompt in enumerate(part)
        ]

        def make(directory: Path, start: int = start, made: list[ReplayPair] = made) -> None:
            write_shard(directory / f"pairs-{start:06d}.parquet", made)

        shards.append(run_output(store, shard, make).manifest)
    inputs = {f"shard-{shard.start:06d}": shard.digest for shard in shards}
    manifest = PairsManifest(
        **_base("synthesize", task, inputs, {}),
        task=task,
        generator="generator@1234",
        num_pairs=len(prompts),
        num_rejected=1,
        prompts_sha256="e" * 64,
        files=tuple(ref for shard in shards for ref in shard.files),
    )
    return run_output(store, manifest, lambda _directory: None).manifest


def _fisher(
    store: ObjectStore, model: ModelManifest, pairs: PairsManifest, seed: int
) -> FisherManifest:
    generator = np.random.Generator(np.random.PCG64(seed))
    blocks = [
        "visual.conv1",
        "visual.blocks.0",
        "visual.blocks.1",
        "text.blocks.0",
        "text.embedding",
    ]
    inputs = {"model": model.digest, "pairs": pairs.digest}
    manifest = FisherManifest(
        **_base("estimate-fisher", model.name, inputs, {}),
        model=model.digest,
        pairs=pairs.digest,
        drift=tuple(
            BlockDrift(
                block=block,
                num_parameters=4096,
                distance=float(generator.uniform(0.1, 1)),
                relative=float(generator.uniform(0.002, 0.05)),
                weighted=float(generator.uniform(0.1, 2)),
            )
            for block in blocks
        ),
    )

    def make(directory: Path) -> None:
        (directory / "fisher.safetensors").write_bytes(bytes(1000))

    return run_output(store, manifest, make).manifest


def _scores(
    store: ObjectStore, model: ModelManifest, tasks: Sequence[str], row: Sequence[int]
) -> ScoresManifest:
    scores = [
        Score(data_set=name, split="test", num_correct=number, num_images=NUM_IMAGES)
        for name, number in zip([*tasks, "held-out"], row, strict=True)
    ]
    manifest = ScoresManifest(
        **_base("evaluate", f"after-{model.name}", {"model": model.digest}, {}),
        model=model.digest,
        after_task=model.task,
        tasks=tuple(scores[:-1]),
        panel=tuple(scores[-1:]),
    )
    return run_output(store, manifest, lambda _directory: None).manifest


def _accuracies(num_tasks: int, lost_percent: float) -> list[list[int]]:
    """Correct images of 400 by row; each task costs every other one `lost_percent`."""
    row = [40.0 + 11.0 * (number % 3) for number in range(num_tasks)] + [62.0]
    rows = [row]
    for learnt in range(num_tasks):
        row = [
            96.0 - learnt if number == learnt else max(5.0, value - lost_percent)
            for number, value in enumerate(row)
        ]
        rows.append(row)
    return [[round(NUM_IMAGES * value / 100) for value in row] for row in rows]


def _base(
    stage: str, name: str, inputs: dict[str, str], settings: dict[str, object]
) -> dict[str, object]:
    named = settings | {"name": name}
    return {
        "name": name,
        "key": output_key(stage, Manifest.REVISION, inputs, named, 3),
        "inputs": inputs,
        "settings": named,
        "seed": 3,
        "versions": {"torch": "2.14.1", "open_clip_torch": "3.3.0"},
    }


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """Give an empty store in a folder."""
    return FolderStore(tmp_path / "store")


@pytest.fixture
def run(store: ObjectStore) -> MadeUpRun:
    """Give a made-up run of three tasks by GIFT."""
    return made_up_run(store)


@pytest.fixture
def nobody_looks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bar by itself, be it that pytest's own terminal is let through (-s)."""
    monkeypatch.setattr(progress, "terminal", lambda _: None)
