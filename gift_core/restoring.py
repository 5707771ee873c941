"""Taking up saved tensors: a checkpoint of another run is refused by what does not fit."""

import torch
from torch import Tensor

from gift_core.errors import DataError


@torch.no_grad()
def copy_saved_(target: Tensor, saved: Tensor, name: str) -> None:
    """Copy a saved tensor into `target`; DataError when their shapes differ."""
    if target.shape != saved.shape:
        raise DataError(
            f"checkpoint: {name} has the shape {tuple(saved.shape)} where the model has "
            f"{tuple(target.shape)}, so it belongs to another run; delete it"
        )
    target.copy_(saved)
