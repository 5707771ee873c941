"""What a task is learnt against beside its parent and its pairs; nothing for the paper's method.

Baselines and ablations ask for more: another teacher, texts that are distilled on, real pictures,
Fisher diagonals of earlier tasks, the other tasks themselves.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gift_core.averaging import interpolate
from gift_core.finetune_settings import FinetuneSettings
from gift_core.normalised import summed_fisher
from gift_core.settings import Settings
from gift_core.teacher import Teacher
from tasks.check import Plan, PlannedDataSet, PlannedTask
from tasks.data.unions import Labelled, evenly_drawn, union_of
from tasks.manifests import (
    FisherManifest,
    Manifest,
    ModelManifest,
    PairsManifest,
    canonical_json,
    sha256_hex,
)
from tasks.models.encoders import Encoder
from tasks.replay import ReplaySet, labelled_set, open_frozen, replay_set
from tasks.scratch import scratch_folder
from tasks.store.checkpoints import load_tensors
from tasks.store.objects import ObjectStore
from tasks.store.outputs import read_verified

FISHER = "fisher.safetensors"


class Reference(Settings):
    """The extra inputs of a task; each is empty where its settings do not ask for it."""

    teacher: Teacher = Teacher()
    initial: ModelManifest | None = None
    fishers: tuple[FisherManifest, ...] = ()
    known_prompts: tuple[str, ...] = ()
    exemplars: tuple[PlannedDataSet, ...] = ()
    memory: int = 0
    joint: tuple[PlannedDataSet, ...] = ()

    @property
    def inputs(self) -> dict[str, str]:
        """What it adds to the inputs that an output's key is made from."""
        inputs = {} if self.initial is None else {"initial": self.initial.digest}
        inputs |= {f"fisher-{n:02d}": each.digest for n, each in enumerate(self.fishers)}
        if self.known_prompts:
            inputs["known-prompts"] = sha256_hex(canonical_json(list(self.known_prompts)))
        for kind, data_sets in (("exemplars", self.exemplars), ("joint", self.joint)):
            if data_sets:
                inputs[kind] = sha256_hex(canonical_json([_told(each) for each in data_sets]))
        return inputs

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """The outputs among it."""
        return self.fishers if self.initial is None else (self.initial, *self.fishers)


NOTHING = Reference()


def _told(data_set: PlannedDataSet) -> list[object]:
    return [data_set.name, data_set.digests["train"], list(data_set.prompts)]


def reference_of(
    plan: Plan, task: PlannedTask, initial: ModelManifest, fishers: Sequence[FisherManifest]
) -> Reference:
    """What the settings of a task ask for; `fishers` are those of the earlier tasks."""
    settings = task.finetune
    objective, averaging = settings.objective, settings.averaging
    replays = objective.uses_replay
    pictures = {"pairs": (), "task": (task,), "exemplars": plan.earlier(task)}
    exemplars = pictures[settings.data.replayed] if replays else ()
    mixes_initial = averaging.mixes and averaging.origin == "initial"
    teacher = settings.teacher if replays else Teacher()
    return Reference(
        teacher=teacher,
        initial=initial if teacher.share > 0.0 or mixes_initial else None,
        fishers=tuple(fishers) if objective.is_ewc else (),
        known_prompts=plan.known_prompts(task) if objective.knows_texts else (),
        exemplars=tuple(each.data_set for each in exemplars),
        memory=settings.data.memory if exemplars else 0,
        joint=tuple(each.data_set for each in plan.tasks) if settings.data.joint else (),
    )


def reference_of_fisher(plan: Plan, model: ModelManifest, initial: ModelManifest) -> Reference:
    """What the Fisher estimate of a new model asks for; for EWC the images of its task."""
    (task,) = (each for each in plan.tasks if each.name == model.task)
    learning = plan.sequence.learning
    if learning.objective.is_ewc:
        return Reference(exemplars=(task.data_set,), memory=learning.data.memory)
    asked = reference_of(plan, task, initial, ())
    kept = {"teacher", "known_prompts"} | ({"initial"} if asked.teacher.share > 0.0 else set())
    return Reference(**{name: getattr(asked, name) for name in kept})


def replayed_set(
    store: ObjectStore,
    pairs: PairsManifest | None,
    reference: Reference,
    teacher: Encoder,
    cache: Path,
    seed: int,
) -> ReplaySet:
    """What is replayed: the pairs, or real pictures of the reference's data sets.

    Of those at most `memory`, shared evenly by the data sets and then by their classes, drawn by
    the seed. Fewer are the first of more, so that a memory could have been kept as tasks went by.
    """
    if pairs is not None:
        return replay_set(store, pairs, teacher, cache, reference.known_prompts)
    share = max(1, reference.memory // len(reference.exemplars))
    opened = [(each.data.open_split("train"), each.prompts) for each in reference.exemplars]
    drawn = [(evenly_drawn(split, share, seed), prompts) for split, prompts in opened]
    names = ", ".join(each.name for each in reference.exemplars)
    what = f"Real pictures of {names}"
    return labelled_set(what, *union_of(drawn), teacher, cache, reference.known_prompts)


def training_split(planned: PlannedDataSet, joint: Sequence[PlannedDataSet]) -> Labelled:
    """The labelled images that a task is learnt on, and the prompts of the labels."""
    data_sets = joint or (planned,)
    return union_of([(each.data.open_split("train"), each.prompts) for each in data_sets])


def open_teacher(
    store: ObjectStore, parent: ModelManifest, reference: Reference, device: torch.device
) -> Encoder:
    """Load the frozen teacher: the parent, theta_0, or a mix of their weights."""
    share = reference.teacher.share
    if reference.initial is None or share == 0.0:
        return open_frozen(store, parent, device)
    initial = open_frozen(store, reference.initial, device)
    if share == 1.0:
        return initial
    teacher = open_frozen(store, parent, device)
    _mix_(teacher, initial, share)
    return teacher


@torch.no_grad()
def _mix_(teacher: Encoder, initial: Encoder, share: float) -> None:
    own, other = (dict(each.model.named_parameters()) for each in (teacher, initial))
    mixed = interpolate(list(own.values()), [other[name] for name in own], share)
    for parameter, value in zip(own.values(), mixed, strict=True):
        parameter.copy_(value)


def load_fisher(store: ObjectStore, reference: Reference) -> dict[str, Tensor]:
    """Read the earlier tasks' Fisher diagonals, verified, and add them; empty without any."""
    if not reference.fishers:
        return {}
    with scratch_folder() as folder:
        path = folder / FISHER
        diagonals = []
        for manifest in reference.fishers:
            path.write_bytes(read_verified(store, manifest.file(FISHER)))
            diagonals.append(load_tensors(path))
    names = list(diagonals[0])
    return dict(zip(names, summed_fisher(diagonals, names), strict=True))


def load_initial(
    store: ObjectStore, reference: Reference, settings: FinetuneSettings
) -> dict[str, Tensor]:
    """Read the pretrained model's weights by name; empty where they are not mixed in."""
    if reference.initial is None or not settings.averaging.mixes:
        return {}
    initial = open_frozen(store, reference.initial, torch.device("cpu"))
    return {name: p.detach() for name, p in initial.model.named_parameters()}
