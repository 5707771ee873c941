"""Zero-shot classification: class prompts become a classifier, without any training.

Shapes: B images, K classes, R templates, D features, L tokens of a prompt.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit_vectors

from gift_core.features import DualEncoder, encode_texts


@torch.no_grad()
def zero_shot_classifier(
    model: DualEncoder, tokens_KRL: Tensor, texts_per_batch: int = 256
) -> Tensor:
    """Make the weights (K, D) of a classifier from K classes in R templates, token numbers int64.

    Every text is normalised, the R texts of a class are averaged, the average is normalised
    again. `texts_per_batch` bounds memory and changes nothing else. The dtype is the model's.
    Source: docs/method.md, Published numbers.
    """
    num_classes, num_templates, _ = tokens_KRL.shape
    parts = torch.split(tokens_KRL.flatten(0, 1), texts_per_batch)
    features = torch.cat([encode_texts(model, part) for part in parts])
    features_KRD = features.reshape(num_classes, num_templates, -1)
    return unit_vectors(features_KRD.mean(dim=1), dim=-1)


@torch.no_grad()
def predict(image_features_BD: Tensor, weights_KD: Tensor) -> Tensor:
    """Choose the most similar class of every image: (B,), int64, a row of `weights_KD`.

    Source: docs/method.md, Setting.
    """
    return (image_features_BD @ weights_KD.T).argmax(dim=1)
