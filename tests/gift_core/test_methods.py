"""Each method as settings: what it switches on, and what it leaves to the user."""

import pytest

from gift_core.finetune_settings import Averaging, FinetuneSettings
from gift_core.learning_data import LearningData
from gift_core.methods import settings_for
from gift_core.objective import METHODS, Method
from gift_core.teacher import Teacher

PLAIN = FinetuneSettings()
EXPECTED: dict[Method, dict[str, object]] = {
    "wise-ft": {"averaging": Averaging(share=0.8)},
    "zscl": {"averaging": Averaging(ensemble_every=100), "teacher": Teacher(model="initial")},
    "lwf": {"data": LearningData(replayed="task")},
    "icarl": {"data": LearningData(replayed="exemplars")},
    "joint": {"data": LearningData(joint=True)},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_its_objective_and_little_else(method: Method) -> None:
    changed = {"objective": PLAIN.objective.for_method(method)} | EXPECTED.get(method, {})
    settings = settings_for(method, PLAIN)
    assert settings == PLAIN.model_copy(update=changed)
    assert FinetuneSettings.model_validate_json(settings.model_dump_json()) == settings


def test_what_a_user_sets_is_the_methods_too() -> None:
    asked = FinetuneSettings(
        averaging=Averaging(share=0.3, ensemble_every=7), data=LearningData(memory=50)
    )
    assert settings_for("wise-ft", asked).averaging.share == 0.3
    assert settings_for("zscl", asked).averaging.ensemble_every == 7
    assert settings_for("icarl", asked).data == LearningData(replayed="exemplars", memory=50)


@pytest.mark.parametrize("method", ["ewc", "icarl"])
def test_the_first_task_is_plain_fine_tuning_and_has_its_key(method: Method) -> None:
    assert settings_for(method, PLAIN, first=True) == settings_for("finetune", PLAIN)


@pytest.mark.parametrize("method", ["gift", "lwf", "zscl", "l2"])
def test_the_first_task_of_others_is_like_the_rest(method: Method) -> None:
    assert settings_for(method, PLAIN, first=True) == settings_for(method, PLAIN)


def test_who_keeps_old_data() -> None:
    keeping = {m for m in METHODS if settings_for(m, PLAIN).data.keeps_old_data}
    assert keeping == {"icarl", "joint"}


def test_defaults_are_written_nowhere_so_that_keys_stay() -> None:
    written = PLAIN.model_dump()
    assert not written.keys() & {"teacher", "averaging", "data"}
    assert written["objective"]["distillation"].keys() == {"weight", "temperature"}
    assert written["objective"]["consolidation"].keys() == {"kind", "weight"}
