"""Retrieval on replay pairs: does a picture find its prompt, and a prompt one of its pictures.

Shapes: N pairs, P distinct prompts, D features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 1024
"""Pictures or prompts that are compared at once; bounds memory and changes nothing else."""


@dataclass(frozen=True, eq=False)
class Retrieved:
    """The most similar one, int64 on the CPU: a prompt for each picture, a picture for each prompt.

    Every picture with a prompt's words is right for it, and every equal prompt is one prompt.
    """

    prompts_N: Tensor
    pictures_P: Tensor
    prompt_ids_N: Tensor

    @property
    def num_pictures_right(self) -> int:
        """Pictures that find their prompt: R@1 of image to text, times N."""
        return int((self.prompts_N == self.prompt_ids_N).sum())

    @property
    def num_prompts_right(self) -> int:
        """Prompts that find a picture of theirs: R@1 of text to image, times P."""
        own_P = self.prompt_ids_N[self.pictures_P]
        return int((own_P == torch.arange(len(own_P))).sum())


@torch.no_grad()
def retrieve(images_ND: Tensor, prompts_PD: Tensor, prompt_ids_N: Tensor) -> Retrieved:
    """Search among unit vectors; `prompt_ids_N` is the row of each pair's own prompt.

    Source: docs/method.md, Measures.
    """
    return Retrieved(
        prompts_N=_nearest(images_ND, prompts_PD),
        pictures_P=_nearest(prompts_PD, images_ND),
        prompt_ids_N=prompt_ids_N.cpu(),
    )


def _nearest(of_AD: Tensor, among_BD: Tensor) -> Tensor:
    return torch.cat([(part @ among_BD.T).argmax(dim=1) for part in torch.split(of_AD, ROWS)]).cpu()
