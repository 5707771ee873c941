"""The teacher as a judge of generated pictures: its features of them, and how sure it is.

Letters: B pictures, P distinct prompts, L tokens, D features.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from gift_core.features import encode_images, encode_texts
from gift_core.selection import confidence
from tasks.generation import Image as Pixels
from tasks.manifests import ModelManifest
from tasks.models.encoders import Encoder, best_device
from tasks.replay import ENCODE_BATCH, open_frozen
from tasks.store.objects import ObjectStore


class TeacherJudge:
    """Asks a frozen model which of a task's prompts it sees in a picture."""

    @torch.no_grad()
    def __init__(self, teacher: Encoder, prompts: Sequence[str]) -> None:
        self._teacher = teacher
        self._row_of = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        tokens_PL = teacher.tokenize(list(self._row_of))
        self._texts_PD = torch.cat(
            [encode_texts(teacher.model, part) for part in tokens_PL.split(ENCODE_BATCH)]
        )

    @torch.no_grad()
    def __call__(self, images: Sequence[Pixels], prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features (B, D) and confidence (B,) of pictures, on the CPU."""
        teacher = self._teacher
        images_BCHW = torch.stack([teacher.crop(Image.fromarray(image)) for image in images])
        features_BD = encode_images(teacher.model, teacher.normalise(images_BCHW))
        own_B = torch.tensor([self._row_of[prompt] for prompt in prompts], device=teacher.device)
        scale = float(teacher.model.clip.logit_scale.exp())
        sure_B = confidence(features_BD, self._texts_PD, own_B, scale)
        return features_BD.cpu(), sure_B.cpu()


def teacher_judge(
    store: ObjectStore, teacher: ModelManifest, prompts: Sequence[str]
) -> TeacherJudge:
    """Load the teacher from the store, verified; StoreError when it is gone or altered."""
    return TeacherJudge(open_frozen(store, teacher, best_device()), prompts)
