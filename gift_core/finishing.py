"""What a learnt task leaves: the last step's weights, or an average of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gift_core.averaging import interpolate
from gift_core.errors import SettingsError
from gift_core.features import trainable_parameters
from gift_core.training import TrainingState


@torch.no_grad()
def finish_(state: TrainingState, initial: Sequence[Tensor] | None = None) -> None:
    """Give the student the weights that the task leaves: the last step's, or their average.

    First the ensemble, then the mixture with the weights before the task or with `initial`, the
    pretrained model's in the order of `trainable_parameters`; SettingsError where these are wanted
    and missing. Call it once, after the last step. Source: docs/method.md, ZSCL and WiSE-FT.
    """
    averaging = state.settings.averaging
    parameters = list(trainable_parameters(state.student).values())
    learnt: Sequence[Tensor] = state.ensemble.tensors if state.ensemble else parameters
    if averaging.mixes and averaging.share is not None:
        origin = state.anchor.parameters if averaging.origin == "previous" else initial
        if origin is None:
            raise SettingsError("averaging.origin: initial needs the pretrained model's weights")
        learnt = interpolate(origin, learnt, averaging.share)
    for parameter, value in zip(parameters, learnt, strict=True):
        parameter.copy_(value)
