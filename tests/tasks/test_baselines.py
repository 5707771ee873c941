"""Each baseline on a real model: what it starts from, what its key is made of, where it ends."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from gift_core.averaging import interpolate
from gift_core.errors import SettingsError
from gift_core.finetune_settings import Averaging
from gift_core.objective import Method
from gift_core.teacher import Teacher
from tasks.check import Plan, check_sequence
from tasks.data.unions import union_of
from tasks.estimate_fisher import FISHER, fisher_of_model
from tasks.finetune import finetune, planned_model
from tasks.growth import grown
from tasks.manifests import FisherManifest, ModelManifest
from tasks.models.encoders import best_device
from tasks.pretrained import take_pretrained
from tasks.reference import (
    Reference,
    load_fisher,
    open_teacher,
    reference_of,
    reference_of_fisher,
)
from tasks.replay import open_frozen
from tasks.store.arrivals import Arrivals
from tasks.store.checkpoints import load_tensors
from tasks.store.objects import FolderStore
from tasks.store.outputs import fetch_output
from tests.worlds import tiny_sequence


class World:
    """A store with theta_0, and plans of two tiny tasks by each method."""

    def __init__(self, data: Path, store: FolderStore) -> None:
        self.data, self.store = data, store
        self.initial = self.take(self.plan("finetune"))

    def plan(self, method: Method, **changes: object) -> Plan:
        sequence = tiny_sequence(self.data, self.store.url, method=method, **changes)
        return check_sequence(sequence, self.store)

    def take(self, plan: Plan) -> ModelManifest:
        return take_pretrained.fn(self.store, plan.sequence.model, plan.model_identity).manifest

    def learn(
        self,
        plan: Plan,
        number: int,
        fishers: tuple[FisherManifest, ...] = (),
        parent: ModelManifest | None = None,
    ) -> ModelManifest:
        task, parent = plan.tasks[number], parent or self.initial
        reference = reference_of(plan, task, self.initial, fishers)
        execution = plan.sequence.execution
        return finetune.fn(self.store, task, 7, parent, None, execution, reference).manifest

    def weights(self, manifest: ModelManifest, folder: Path) -> dict[str, torch.Tensor]:
        fetch_output(self.store, manifest, folder / manifest.key)
        return load_tensors(folder / manifest.key / "open_clip_model.safetensors")


@pytest.fixture(scope="module")
def world(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tiny_data, FolderStore(tmp_path_factory.mktemp("baselines")))


def finetune_settings(world: World, **changes: object) -> dict[str, object]:
    plain = tiny_sequence(world.data, "unused").finetune
    return {**plain.model_dump(mode="json"), **changes}


@pytest.mark.parametrize(
    ("method", "inputs"),
    [
        ("finetune", set()),
        ("wise-ft", set()),
        ("lwf", {"known-prompts", "exemplars"}),
        ("icarl", {"known-prompts", "exemplars"}),
        ("joint", {"joint"}),
    ],
)
def test_what_a_method_uses_is_in_its_key(world: World, method: Method, inputs: set[str]) -> None:
    plan = world.plan(method)
    assert not plan.replays
    task = plan.tasks[1]
    reference = reference_of(plan, task, world.initial, ())
    manifest = planned_model(task, 7, world.initial, None, reference)
    assert set(manifest.inputs) == {"parent", "data"} | inputs
    assert reference.manifests == ()
    assert plan.sequence.keeps_old_data == (method in ("icarl", "joint"))


def test_zscl_asks_theta_0_and_distils_its_pairs_on_what_was_known(world: World) -> None:
    plan = world.plan("zscl")
    assert plan.replays
    reference = reference_of(plan, plan.tasks[1], world.initial, ())
    assert reference.initial == world.initial
    assert reference.teacher == Teacher(model="initial")
    assert reference.known_prompts == plan.known_prompts(plan.tasks[1])
    assert "a photo of a red square." in reference.known_prompts
    assert reference.exemplars == ()


def test_the_pool_may_be_the_pretrainings_alone(world: World) -> None:
    synthesis = tiny_sequence(world.data, "unused").synthesis.model_dump(mode="json")
    plan = world.plan("gift", synthesis=synthesis | {"prompts": "pretraining"})
    assert plan.prompt_pool(plan.tasks[1]) == plan.pretraining_prompts
    assert len(plan.known_prompts(plan.tasks[1])) == 5


def test_the_papers_method_asks_for_nothing_more(world: World) -> None:
    plan = world.plan("gift")
    assert reference_of(plan, plan.tasks[1], world.initial, ()) == Reference()
    assert Reference().inputs == {}


@pytest.mark.parametrize("method", ["lwf", "icarl"])
def test_real_pictures_are_replayed(world: World, method: Method, tmp_path: Path) -> None:
    plan = world.plan(method, finetune=finetune_settings(world, data={"memory": 5}))
    learnt = world.learn(plan, 1)
    fetch_output(world.store, learnt, tmp_path)
    history = (tmp_path / "history.json").read_text()
    assert '"replay_accuracy":[null' not in history
    assert '"distillation_loss":[0.0' not in history


def test_joint_of_one_task_is_plain_fine_tuning(world: World, tmp_path: Path) -> None:
    one = tiny_sequence(world.data, "unused").tasks[:1]
    plans = [world.plan(method, tasks=one) for method in ("joint", "finetune")]
    joint, plain = (world.weights(world.learn(plan, 0), tmp_path) for plan in plans)
    assert all(torch.equal(joint[name], plain[name]) for name in plain)


def test_joint_learns_the_classes_of_all_tasks(world: World) -> None:
    plan = world.plan("joint")
    joint = reference_of(plan, plan.tasks[0], world.initial, ()).joint
    _, prompts = union_of([(t.data.open_split("train"), t.prompts) for t in joint])
    assert len(prompts) == 3  # the green square is in both


def test_wise_ft_of_share_0_gives_the_parent_back(world: World, tmp_path: Path) -> None:
    nothing = Averaging(share=0.0, origin="initial").model_dump()
    plan = world.plan("wise-ft", finetune=finetune_settings(world, averaging=nothing))
    learnt = world.learn(plan, 0)
    before, after = (world.weights(each, tmp_path) for each in (world.initial, learnt))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_mixed_teacher_lies_between_both(world: World) -> None:
    learnt, device = world.learn(world.plan("finetune"), 0), best_device()
    mix = Teacher(model="mix", initial_share=0.25)
    reference = Reference(teacher=mix, initial=world.initial)
    mixed = open_teacher(world.store, learnt, reference, device)
    own, other = (
        [p for _, p in open_frozen(world.store, each, device).model.named_parameters()]
        for each in (learnt, world.initial)
    )
    for found, expected in zip(
        (p for _, p in mixed.model.named_parameters()), interpolate(own, other, 0.25), strict=True
    ):
        assert torch.allclose(found, expected)


def test_ewc_holds_by_the_fisher_of_the_tasks_before(world: World, tmp_path: Path) -> None:
    plan = world.plan("ewc")
    assert planned(world, plan, 0).key == planned(world, world.plan("finetune"), 0).key
    first = world.learn(plan, 0)
    sequence = plan.sequence
    fisher = fisher_of_model.fn(
        world.store,
        first,
        world.initial,
        None,
        sequence.objective,
        sequence.fisher,
        sequence.execution.cache,
        reference_of_fisher(plan, first, world.initial),
    ).manifest
    assert (fisher.pairs, set(fisher.inputs)) == (None, {"model", "parent", "exemplars"})
    reference = reference_of(plan, plan.tasks[1], world.initial, (fisher,))
    assert reference.inputs == {"fisher-00": fisher.digest}
    fetch_output(world.store, fisher, tmp_path / "fisher")
    raw, summed = load_tensors(tmp_path / "fisher" / FISHER), load_fisher(world.store, reference)
    assert mean_of(summed) == pytest.approx(1.0)
    assert torch.allclose(summed["visual.proj"], raw["visual.proj"] / mean_of(raw))
    second = world.learn(plan, 1, (fisher,), first)
    fetch_output(world.store, second, tmp_path / "second")
    held = (tmp_path / "second" / "history.json").read_text()
    assert '"consolidation_loss":[0.0,0.0,0.0]' not in held


def planned(world: World, plan: Plan, number: int) -> ModelManifest:
    task = plan.tasks[number]
    reference = reference_of(plan, task, world.initial, ())
    return planned_model(task, 7, world.initial, None, reference)


def mean_of(tensors: Mapping[str, torch.Tensor]) -> float:
    return float(torch.cat([tensor.flatten() for tensor in tensors.values()]).mean())


@pytest.mark.parametrize("method", ["zero-shot", "joint"])
def test_methods_without_an_order_of_tasks_do_not_grow(world: World, method: Method) -> None:
    sequence = world.plan(method).sequence
    with pytest.raises(SettingsError, match="learns no task on top of another, so tiny cannot"):
        grown(sequence, Arrivals(sequence="tiny"), (world.initial,), sequence.tasks[0])
