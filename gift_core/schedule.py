"""The learning rate over a task: linear warm-up, then half a cosine down to zero."""

import math

from gift_core.errors import SettingsError


def learning_rate_at(step: int, num_steps: int, warmup_steps: int, peak: float) -> float:
    """Compute the learning rate of update `step`, counted from 0 to num_steps - 1.

    (step + 1) / warmup_steps * peak while step < warmup_steps, so that `peak` (the unit of the
    result) is reached by the last update of the warm-up; then peak * (1 + cos(pi * x)) / 2, where
    x runs from 0 towards 1 at num_steps. Raises SettingsError when step or warmup_steps lies
    outside of num_steps. Source: docs/method.md step 7.
    """
    if not 0 <= warmup_steps <= num_steps:
        raise SettingsError(
            f"warmup_steps: {warmup_steps} is not between 0 and num_steps, {num_steps}; "
            "take a tenth of num_steps"
        )
    if not 0 <= step < num_steps:
        raise SettingsError(
            f"step: {step} is not between 0 and {num_steps - 1}; steps count from 0, so the last "
            "one is num_steps - 1"
        )
    if step < warmup_steps:
        return (step + 1) / warmup_steps * peak
    progress = (step - warmup_steps) / (num_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * progress)) * peak
