"""`batch_size: auto`: settled once for a store, before a shard is planned; a number stays."""

import logging
from collections import Counter
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from flows.pools import _missing_shards
from tasks.batch_size import with_batch_size, with_known_batch_size
from tasks.manifests import BatchSizeManifest
from tasks.models import batch_fit
from tasks.models.generators import DiffusersSettings
from tasks.pairs_card import card_of
from tasks.store.inventory import take_inventory
from tasks.store.objects import FolderStore
from tasks.store.outputs import read_run_record
from tasks.store.sweep import find_unreferenced
from tasks.store.verify import verify_store
from tasks.synthesize import PairsPlan, commit_pairs, generate_shard, planned_shard
from tests.tasks.models.test_batch_fit import MIB, Card, line
from tests.tasks.painter import Painter
from tests.tasks.test_synthesize import plan_of

GPU = torch.device("cuda", 0)


def auto(**changes: object) -> PairsPlan:
    """The plan of the stage's tests, its batch size left to be found."""
    plan = plan_of()
    generator = plan.settings.generator.model_copy(update={"batch_size": "auto", **changes})
    settings = plan.settings.model_copy(update={"generator": generator})
    return plan.model_copy(update={"settings": settings})


def size_of(plan: PairsPlan | None) -> object:
    return plan and plan.settings.generator.batch_size


def unwanted() -> Painter:
    raise AssertionError("the generator was loaded")


class OnCard(Painter):
    """A painter whose batches take a card's memory."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.try_batch = card.try_batch


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """A GPU of 3900 MiB in place of the driver's: 16 pictures."""
    made = Card(3900 * MIB, line)
    monkeypatch.setattr("tasks.models.batch_fit.CudaMemory", lambda _device: made)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _device: "Card 1")
    return made


def test_a_number_is_taken_as_it_is(tmp_path: Path) -> None:
    store, plan = FolderStore(tmp_path), plan_of()
    assert with_batch_size(store, plan, unwanted, GPU) is plan
    assert with_known_batch_size(store, plan) is plan
    assert store.list("") == []


def test_a_gpu_is_measured_once_for_every_run_task_and_worker(
    tmp_path: Path, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    store, plan = FolderStore(tmp_path), auto()
    assert with_known_batch_size(store, plan) is None
    with caplog.at_level(logging.INFO):
        settled = with_batch_size(store, plan, lambda: OnCard(card), GPU)
        other_task = auto(num_steps=4, solver="ddim").model_copy(update={"task": "warm"})
        again = with_batch_size(store, other_task, unwanted, GPU)
        on_cpu = with_batch_size(store, plan, unwanted, torch.device("cpu"))
    assert size_of(settled) == size_of(again) == size_of(on_cpu) == 16
    assert with_known_batch_size(store, plan) == settled == on_cpu
    assert settled.batch_size_found == again.batch_size_found
    assert "auto is 16 pictures a call, found on Card 1, kept in outputs/batch-size/" in caplog.text
    assert "found before on Card 1" in caplog.text
    (found,) = take_inventory(store).outputs.values()
    record = read_run_record(store, found.manifest)
    assert record is not None
    assert record.measured == {"free_bytes": 3900 * MIB, "picture_bytes": 200 * MIB}


def test_what_takes_other_memory_is_measured_by_itself(tmp_path: Path, card: Card) -> None:
    store = FolderStore(tmp_path)
    assert size_of(with_batch_size(store, auto(), lambda: OnCard(card), GPU)) == 16
    card.free = 1800 * MIB
    for changes in ({"image_size": 64}, {"precision": "bf16"}):
        assert size_of(with_batch_size(store, auto(**changes), lambda: OnCard(card), GPU)) == 4
    other = auto().model_copy(update={"generator_identity": "painter@2"})
    assert size_of(with_batch_size(store, other, lambda: OnCard(card), GPU)) == 4


def test_a_cpu_takes_the_default_and_loads_nothing(tmp_path: Path) -> None:
    settled = with_batch_size(FolderStore(tmp_path), auto(), unwanted, torch.device("cpu"))
    assert size_of(settled) == DiffusersSettings().batch_size == 16


def test_of_two_workers_that_measure_at_once_one_is_believed(tmp_path: Path, card: Card) -> None:
    store, small = FolderStore(tmp_path), Card(1800 * MIB, line)

    class Slow(OnCard):
        """While this one measures, another worker with less memory is done."""

        def __init__(self) -> None:
            super().__init__(card)
            size, _ = batch_fit.largest_batch(small.try_batch, small)
            card.free, free = small.free, card.free
            self.other = with_batch_size(store, auto(), lambda: OnCard(card), GPU)
            card.free = free
            assert size_of(self.other) == size == 4

    assert size_of(with_batch_size(store, auto(), Slow, GPU)) == 4


def test_shards_are_those_of_the_number_and_the_pairs_name_where_it_is_from(
    tmp_path: Path,
) -> None:
    store, plan = FolderStore(tmp_path), auto()
    assert _missing_shards(store, plan) == [0, 1, 2]  # a worker settles the number
    settled = with_batch_size(store, plan, unwanted, torch.device("cpu"))
    set_by_hand = auto(batch_size=16)
    assert planned_shard(settled, 0).key == planned_shard(set_by_hand, 0).key
    shards = [generate_shard.fn(store, settled, s, Painter)().manifest for s in settled.starts]
    assert _missing_shards(store, plan) == []
    pairs = commit_pairs.fn(store, settled, shards).manifest
    assert pairs.settings["generator"]["batch_size"] == 16
    assert pairs.inputs["batch-size"] == settled.batch_size_found
    card = card_of(pairs, Counter(settled.prompts), "openrail")
    assert "- Pictures a call: 16 (auto: found once for this generator, then kept)" in card
    assert verify_store(store).damages == ()
    inventory = take_inventory(store)
    reached = inventory.reached_from([f"synthesize/{pairs.key}"])
    (found,) = [
        r for r, o in inventory.outputs.items() if isinstance(o.manifest, BatchSizeManifest)
    ]
    assert found in reached
    assert len(find_unreferenced(store, -1).groups) == len(inventory.outputs)  # no report yet
    store.delete(f"outputs/{found}/manifest.json")
    (damage,) = verify_store(store).damages
    assert "its batch-size, manifest" in damage.problem


@pytest.mark.parametrize("value", [0, 1025, "many", None])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        DiffusersSettings.model_validate({"batch_size": value})
