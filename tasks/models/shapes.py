"""A model's shapes without its weights: no file is read but its config, no memory is taken."""

import logging

import open_clip
import torch
from torch import nn

from tasks.models.starting_model import HUB


def shapes_of(architecture: str) -> nn.Module | None:
    """A model of open_clip's on the device `meta`; None where its shapes are not known here.

    A model that is not what its config says fails anywhere in open_clip; check_model says why.
    """
    if architecture.startswith(HUB):
        return None  # its config is on the hub
    logging.disable(logging.WARNING)  # open_clip warns of weights that are not loaded
    try:
        with torch.device("meta"):
            model: nn.Module = open_clip.create_model(
                architecture, load_weights=False, pretrained_text=False, device="meta"
            )
    except Exception:
        return None
    finally:
        logging.disable(logging.NOTSET)
    return model
