"""What learns: one tower or both; what does not learn stays bit for bit, whatever holds it."""

import pytest
import torch
from pydantic import ValidationError

from gift_core.finetune_settings import FinetuneSettings
from gift_core.freezing import LowRank, Trained, freeze_towers_
from gift_core.objective import Objective
from gift_core.training import TrainingState, train
from tests.gift_core.tiny import scene


@pytest.mark.parametrize("consolidation", ["adaptive", "l2"])
@pytest.mark.parametrize("frozen", ["image_tower", "text_tower"])
def test_a_frozen_tower_stays_as_it_was_and_the_other_learns(
    frozen: str, consolidation: str
) -> None:
    world = scene()
    student = world.student()
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    settings = FinetuneSettings(
        num_steps=2,
        warmup_steps=0,
        learning_rate=0.01,
        objective=Objective.model_validate({"consolidation": {"kind": consolidation}}),
        trained=Trained.model_validate({frozen: False}),
    )
    state = TrainingState.start(student, settings)
    assert len(state.anchor.parameters) == len(state.optimizer.param_groups[0]["params"])
    batches = [(world.task(step), world.replay(step)) for step in range(2)]
    assert len(list(train(state, batches))) == 2
    for name, parameter in student.named_parameters():
        of_image = name.startswith("visual.")
        stays = name == "logit_scale" or of_image == (frozen == "image_tower")
        assert torch.equal(parameter, before[name]) == stays, name


def test_what_learns_everywhere_is_the_default_and_is_written_nowhere() -> None:
    """So that outputs made before there was a choice keep their keys."""
    assert "trained" not in FinetuneSettings().model_dump(mode="json")
    chosen = FinetuneSettings(trained=Trained(text_tower=False))
    assert FinetuneSettings.model_validate(chosen.model_dump(mode="json")) == chosen
    student = scene().student()
    learning = [p.requires_grad for p in student.parameters()]
    freeze_towers_(student, Trained())
    assert [p.requires_grad for p in student.parameters()] == learning


def test_nothing_that_learns_and_names_of_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="neither tower learns"):
        Trained(image_tower=False, text_tower=False)
    with pytest.raises(ValidationError, match="an empty name fits everything"):
        LowRank(target_modules=("c_fc", ""))
