"""What GIFT is compared with: each method as settings of the one engine.

The objective's part of it is `Objective.for_method`. Source: docs/method.md, baselines.
"""

from typing import TypeVar

from gift_core.finetune_settings import FinetuneSettings
from gift_core.objective import Method
from gift_core.settings import Settings

S = TypeVar("S", bound=Settings)

ENSEMBLE_EVERY = {"zscl": 100}
SHARE = {"wise-ft": 0.8}
REPLAYED = {"lwf": "task", "icarl": "exemplars"}


def settings_for(
    method: Method, finetune: FinetuneSettings, first: bool = False
) -> FinetuneSettings:
    """The settings that a method learns a task with; `gift` leaves them as they are.

    What a method leaves open (weights, temperature, share, memory) is `finetune`'s. Before the
    `first` task nothing was learnt that exemplars or EWC could hold on to: it is learnt by the task
    loss alone. Raises SettingsError for another name.
    """
    averaging, data, teacher = finetune.averaging, finetune.data, finetune.teacher
    objective = finetune.objective.for_method(method)
    if averaging.ensemble_every is None and method in ENSEMBLE_EVERY:
        averaging = _changed(averaging, ensemble_every=ENSEMBLE_EVERY[method])
    if averaging.share is None and method in SHARE:
        averaging = _changed(averaging, share=SHARE[method])
    if method in REPLAYED:
        data = _changed(data, replayed=REPLAYED[method])
    if method == "joint":
        data = _changed(data, joint=True)
    if method == "zscl":
        teacher = _changed(teacher, model="initial")
    if first and (objective.is_ewc or data.replayed == "exemplars"):
        objective = finetune.objective.for_method("finetune")
        data = _changed(data, replayed="pairs", memory=finetune.data.memory)
    return _changed(finetune, objective=objective, averaging=averaging, data=data, teacher=teacher)


def _changed(settings: S, **changes: object) -> S:
    """A copy; the changes are this module's own, so they are not validated again."""
    return settings.model_copy(update=changes)
