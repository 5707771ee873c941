"""The zero-shot classifier: the order of normalising and averaging, and predictions."""

import pytest
import torch
from torch.nn.functional import normalize

from gift_core.zero_shot import predict, zero_shot_classifier
from tests.gift_core.tiny import NUM_WORDS, TinyEncoder, scene


class Lookup(TinyEncoder):
    """Text features are looked up: token 0 gives (3, 0), token 1 (0, 1), token 2 (-2, 0)."""

    def encode_text(self, text: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        assert not normalize
        return torch.tensor([[3.0, 0.0], [0.0, 1.0], [-2.0, 0.0]])[text[:, 0]]


def test_worked_out_by_hand() -> None:
    """Class 2 has the texts (3, 0) and (0, 1): unit vectors (1, 0) and (0, 1).

    Their average (0.5, 0.5) is normalised to (0.7071, 0.7071); averaging before normalising would
    give (0.9487, 0.3162).
    """
    tokens_KRL = torch.tensor([[[2], [2]], [[0], [1]]])
    expected = torch.tensor([[-1.0, 0.0], [0.5**0.5, 0.5**0.5]])
    torch.testing.assert_close(zero_shot_classifier(Lookup(), tokens_KRL), expected)


@pytest.mark.parametrize("texts_per_batch", [1, 4, 5, 100])
def test_batches_do_not_matter(texts_per_batch: int) -> None:
    model = scene().teacher
    tokens_KRL = torch.arange(24).reshape(3, 2, 4) % NUM_WORDS
    weights_KD = zero_shot_classifier(model, tokens_KRL, texts_per_batch)
    slow = [
        normalize(normalize(model.encode_text(texts), dim=1).mean(dim=0), dim=0)
        for texts in tokens_KRL
    ]
    torch.testing.assert_close(weights_KD, torch.stack(slow).detach(), rtol=0, atol=1e-12)
    assert not weights_KD.requires_grad


def test_predict_takes_the_most_similar_class() -> None:
    weights_KD = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], requires_grad=True)
    labels_B = predict(torch.tensor([[0.6, 0.8], [-0.8, 0.6]]), weights_KD)
    assert labels_B.tolist() == [1, 2]
    assert labels_B.dtype == torch.int64
