"""The demo's sequence with fewer steps and pairs, run and looked at by the product's own code.

Importing this imports Prefect, so the address of its server must be in the environment by then.
"""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import diffusers.pipelines.auto_pipeline  # noqa: F401 - takes seconds: once, not in each run
import pyarrow.parquet as pq
from diffusers import StableDiffusionPipeline  # noqa: F401
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)

import tasks.models.preprocessing
import tasks.models.towers  # noqa: F401 - open_clip, as above
from deployments.miniature.demo import manifest_digests, sequence_of
from flows.continual_sequence import continual_sequence
from tasks.sequence import SequenceSettings, StoreSettings
from tasks.store.address import open_store
from tasks.store.heads import HEADS, history_of
from tasks.store.leases import leases
from tasks.store.sweep import find_unreferenced
from tasks.store.verify import verify_store
from tests.soak.forks import Teller
from tests.soak.judging import Left
from tests.soak.telling import tell_all

CHECKPOINT_EVERY = 2
EVERYTHING_IS_OLD = -1.0  # a grace time that even what was written this second is past

QUICK = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_LOGGING_TO_API_ENABLED: False}
"""Each stage waits for up to a second until its heartbeat has stopped and its log is sent."""


def write_thin_data(source: Path, folder: Path) -> None:
    """Write every tenth picture of the miniature's data sets."""
    for path in source.glob("*/*.parquet"):
        table = pq.read_table(path)
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        every_tenth = table.take(list(range(0, len(table), 10)))
        pq.write_table(every_tenth, folder / path.parent.name / path.name)


@dataclass(frozen=True)
class Soaked:
    """One run of the sequence on a store of its own; `scratch` takes all that it leaves else."""

    store: str
    scratch: Path
    data: Path
    cache: Path
    num_tasks: int

    def sequence(self) -> SequenceSettings:
        """GIFT on the miniature, as `make demo` runs it, but shorter."""
        content = sequence_of("gift", 0, StoreSettings(url=self.store)).model_dump()
        content["tasks"] = content["tasks"][: self.num_tasks]
        content["synthesis"] |= {"num_pairs": 40, "pairs_per_shard": 20}
        content["synthesis"]["generator"]["num_steps"] = 2
        content["finetune"] |= {"num_steps": 7, "warmup_steps": 2, "batch_size": 8}
        for data_set in (*content["tasks"], *content["panel"]):
            data_set["data"]["path"] = str(self.data / data_set["name"])
        content["execution"] |= {
            "checkpoint_every": CHECKPOINT_EVERY,
            "tensorboard": None,
            "cache": str(self.cache),
        }
        return SequenceSettings.model_validate(content)

    def run(self, tell: Teller) -> None:
        """Run the flow, telling everything; to be called in a process of its own."""
        self._use_scratch()
        tell_all(tell)
        # The server keeps a killed run's turn for over a minute, and each resumed run would wait.
        with temporary_settings(QUICK), patch("flows.turns._limited_to_one", return_value=False):
            continual_sequence(sequence=self.sequence())

    def look(self, _tell: Teller) -> None:
        """Write down what the store holds; the killed run's lease is removed first.

        `gift gc` would believe for a quarter of an hour that the run lives, and spare everything.
        """
        self._use_scratch()
        store = open_store(self.store)
        dead = leases(store)
        assert len(dead) <= 1, f"more leases than runs that were killed: {sorted(dead)}"
        for path in (path for paths in dead.values() for path in paths):
            store.delete(path)
        history = history_of(store, self.sequence().name)
        left = Left(
            manifests=manifest_digests(store),
            damages=[str(damage) for damage in verify_store(store).damages],
            unreferenced=[
                f"{group.what}: {', '.join(group.paths)}"
                for group in find_unreferenced(store, EVERYTHING_IS_OLD).groups
            ],
            models=[entry.model.output for entry in reversed(history)],
            paths=[
                path
                for path in store.list()
                if not (path.startswith(f"{HEADS}/") and "/entries/" in path)
            ],
        )
        self._left_file.write_text(json.dumps(asdict(left)))

    def left(self) -> Left:
        """What `look` wrote down."""
        return Left(**json.loads(self._left_file.read_text()))

    @property
    def _left_file(self) -> Path:
        return self.scratch / "left.json"

    def _use_scratch(self) -> None:
        tempfile.tempdir = str(self.scratch / "tmp")
        Path(tempfile.tempdir).mkdir(exist_ok=True)
