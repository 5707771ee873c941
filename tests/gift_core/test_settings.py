"""House rules of every settings class of the core, checked by walking over them."""

from types import NoneType
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from gift_core.collapse import CollapseSettings
from gift_core.finetune_settings import Averaging, FinetuneSettings
from gift_core.gate import GatePolicy
from gift_core.learning_data import LearningData
from gift_core.objective import Alignment, Consolidation, Distillation, Objective
from gift_core.settings import Settings
from gift_core.teacher import Teacher

CLASSES = [
    Alignment, Averaging, CollapseSettings, Consolidation, Distillation, FinetuneSettings,
    GatePolicy, LearningData, Objective, Teacher,
]  # fmt: skip


@pytest.mark.parametrize("settings", CLASSES)
def test_every_field_says_what_the_paper_says(settings: type[Settings]) -> None:
    for name, field in settings.model_fields.items():
        assert "(paper: " in (field.description or ""), name
        assert field.default is not None or NoneType in get_args(field.annotation), name


@pytest.mark.parametrize("settings", CLASSES)
def test_every_number_has_both_bounds(settings: type[Settings]) -> None:
    for name, schema in settings.model_json_schema()["properties"].items():
        annotation = settings.model_fields[name].annotation
        if set(get_args(annotation)) & {int, float} and NoneType in get_args(annotation):
            (schema,) = (each for each in schema["anyOf"] if each["type"] != "null")
        elif annotation not in (int, float):
            assert get_origin(annotation) is not None or issubclass(annotation, BaseModel | bool)
            continue
        assert {"minimum", "exclusiveMinimum"} & schema.keys(), name
        assert {"maximum", "exclusiveMaximum"} & schema.keys(), name


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        (Distillation, {"temperature": 0.0}),
        (Distillation, {"weight": -0.1}),
        (Distillation, {"weight": float("inf")}),
        (Distillation, {"temperature": float("nan")}),
        (Distillation, {"temprature": 2.0}),
        (Alignment, {"label_smoothing": 1.0}),
        (Consolidation, {"kind": "ewcc"}),
        (Averaging, {"share": 1.5}),
        (Teacher, {"model": "next"}),
        (LearningData, {"memory": 1}),
        (Objective, {"released": "fixed"}),
        (GatePolicy, {"max_drop_per_task": -0.1}),
        (GatePolicy, {"min_gain": 101.0}),
        (FinetuneSettings, {"num_steps": 0}),
        (FinetuneSettings, {"learning_rate": 0.0}),
        (FinetuneSettings, {"betas": (0.9, 1.0)}),
    ],
)
def test_out_of_bounds_or_misspelt_is_refused(
    settings: type[Settings], wrong: dict[str, object]
) -> None:
    with pytest.raises(ValidationError):
        settings.model_validate(wrong)


def test_a_warm_up_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ValidationError, match="warmup_steps: 100 is more than num_steps, 20"):
        FinetuneSettings(num_steps=20)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Distillation().weight = 2.0
