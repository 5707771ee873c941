"""A parent model, replay pairs and a planned task in a store: what a fine-tuning starts from."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tasks.check import PlannedTask, check_sequence
from tasks.manifests import ModelManifest, PairsManifest
from tasks.pretrained import take_pretrained
from tasks.sequence import ExecutionSettings
from tasks.store.objects import FolderStore
from tasks.synthesize import LazyGenerator, commit_pairs, generate_shard, plan_pairs
from tests.worlds import tiny_sequence, write_tiny_data


@dataclass
class World:
    """Everything below one folder; `store` holds the parent and the pairs, and no new model."""

    folder: Path
    planned: PlannedTask
    parent: ModelManifest
    pairs: PairsManifest
    execution: ExecutionSettings

    @classmethod
    def make(cls, folder: Path, **finetune: object) -> Self:
        """Draw the data, take the model, generate the pairs; `finetune` changes those settings."""
        write_tiny_data(folder / "data")
        world = cls._of(folder, finetune)
        (folder / "finetune.json").write_text(world.planned.finetune.model_dump_json())
        return world

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Find what `make` made."""
        import json

        return cls._of(folder, json.loads((folder / "finetune.json").read_text()))

    @classmethod
    def _of(cls, folder: Path, finetune: dict[str, Any]) -> Self:
        store = FolderStore(folder / "store")
        sequence = tiny_sequence(folder / "data", store.url)
        changed = sequence.finetune.model_validate({**dict(sequence.finetune), **finetune})
        sequence = sequence.model_copy(update={"finetune": changed})
        plan = check_sequence(sequence, store)
        parent = take_pretrained.fn(store, sequence.model, plan.model_identity).manifest
        task, generator = plan.tasks[0], LazyGenerator(sequence.synthesis)
        assert plan.generator_identity is not None
        pairs_plan = plan_pairs(
            task.name, 1, plan.prompt_pool(task), sequence.synthesis, plan.generator_identity, 7
        )
        shards = [
            generate_shard.fn(store, pairs_plan, start, generator)().manifest
            for start in pairs_plan.starts
        ]
        pairs = commit_pairs.fn(store, pairs_plan, shards).manifest
        return cls(folder, task, parent, pairs, sequence.execution)

    def copy(self, store: Path) -> Path:
        """Copy the store as it was before any learning, unless it is there already."""
        if not store.exists():
            shutil.copytree(self.folder / "store", store)
        return store

    def store(self, name: str) -> FolderStore:
        """A copy of the store with this name, beside it."""
        return FolderStore(self.copy(self.folder / name))

    @property
    def arguments(self) -> tuple[PlannedTask, int, ModelManifest, PairsManifest, ExecutionSettings]:
        """What `finetune` is called with, after the store."""
        return self.planned, 7, self.parent, self.pairs, self.execution
