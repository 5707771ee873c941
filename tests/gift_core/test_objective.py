"""The weighted whole: baselines, what needs replay, and combinations that are refused."""

import pytest
from pydantic import ValidationError

from gift_core.errors import SettingsError
from gift_core.objective import METHODS, Alignment, Consolidation, Distillation, Method, Objective


def test_defaults_are_the_papers() -> None:
    assert Objective().model_dump() == {
        "distillation": {"weight": 1.0, "temperature": 2.0},
        "alignment": {"weight": 0.25, "label_smoothing": 0.2},
        "consolidation": {"kind": "adaptive", "weight": 1.0},
        "label_smoothing": 0.2,
        "released": "corrected",
    }


def test_gift_is_unchanged() -> None:
    objective = Objective(label_smoothing=0.1)
    assert objective.for_method("gift") is objective


def test_finetune_has_the_task_loss_alone() -> None:
    objective = Objective(label_smoothing=0.1).for_method("finetune")
    weights = (objective.distillation, objective.alignment, objective.consolidation)
    assert [part.weight for part in weights] == [0.0, 0.0, 0.0]
    assert objective.label_smoothing == 0.1
    assert not objective.uses_replay


def test_l2_keeps_the_pull_without_replay() -> None:
    objective = Objective(consolidation=Consolidation(weight=3.0)).for_method("l2")
    assert objective.consolidation == Consolidation(kind="l2", weight=3.0)
    assert not objective.has_replay_loss
    assert not objective.uses_replay


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"'zsl'; choose gift, zero-shot, .*zscl or joint"):
        Objective().for_method("zsl")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["lwf", "icarl", "zscl"])
def test_methods_that_distil_on_known_texts(method: Method) -> None:
    objective = Objective(distillation=Distillation(temperature=3.0)).for_method(method)
    assert objective.distillation == Distillation(temperature=3.0, texts="known")
    assert objective.alignment.weight == 0.0
    assert objective.uses_replay
    assert objective.knows_texts
    pull = objective.consolidation
    assert (pull.kind, pull.weight) == ("l2", 1.0) if method == "zscl" else pull.weight == 0.0


def test_ewc_holds_by_what_was_estimated_without_replay() -> None:
    objective = Objective().for_method("ewc")
    assert objective.is_ewc
    assert not objective.uses_replay


@pytest.mark.parametrize("method", METHODS)
def test_every_method_survives_json(method: Method) -> None:
    objective = Objective(released="as-published").for_method(method)
    assert Objective.model_validate_json(objective.model_dump_json()) == objective


@pytest.mark.parametrize(
    ("distillation", "alignment", "kind", "weight", "expected"),
    [
        (1.0, 0.0, "l2", 0.0, True),
        (0.0, 0.1, "adaptive", 1.0, True),
        (0.0, 0.0, "l2", 1.0, False),
        (0.0, 0.0, "adaptive", 0.0, False),
    ],
)
def test_uses_replay(
    distillation: float, alignment: float, kind: str, weight: float, expected: bool
) -> None:
    objective = Objective(
        distillation=Distillation(weight=distillation),
        alignment=Alignment(weight=alignment),
        consolidation=Consolidation.model_validate({"kind": kind, "weight": weight}),
    )
    assert objective.uses_replay is expected


def test_adaptive_consolidation_without_a_replay_loss_is_refused() -> None:
    with pytest.raises(ValidationError, match="no Fisher information"):
        Objective(distillation=Distillation(weight=0), alignment=Alignment(weight=0))


def test_only_adaptive_as_published_counts_twice() -> None:
    published = Objective(released="as-published")
    assert Objective().repeats == 1.0
    assert published.repeats == 2.0
    assert published.for_method("l2").repeats == 1.0
    assert published.for_method("finetune").repeats == 1.0
