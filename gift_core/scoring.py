"""What a zero-shot classifier's answers are worth: counted, weighed by class, calibrated.

Shapes: N images of a split, B of a batch, K classes, U classes of all tasks seen, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gift_core.features import similarity
from gift_core.zero_shot import predict

TOP = 5
NUM_BINS = 15


@dataclass(frozen=True, eq=False)
class Answers:
    """A classifier's answers to N images, on the CPU.

    `labels_N` and `predicted_N` are classes, int64; `in_top_N` says whether the label is among the
    five most similar ones (None where there are fewer than five classes); `confidence_N` is the
    probability that the softmax of the logits gives to the predicted class, fp64.
    """

    labels_N: Tensor
    predicted_N: Tensor
    in_top_N: Tensor | None
    confidence_N: Tensor

    @property
    def right_N(self) -> Tensor:  # noqa: N802 - N is the number of images
        """Which of them are right, bool (N,)."""
        return self.predicted_N == self.labels_N


@torch.no_grad()
def answer(features_BD: Tensor, weights_KD: Tensor, labels_B: Tensor, scale: float) -> Answers:
    """Classify a batch; `scale` is exp(logit_scale). Source: docs/method.md, Setting and Measures.

    An offset that a model adds to all of its logits changes none of it.
    """
    logits_BK = similarity(features_BD, weights_KD, scale).cpu()
    predicted_B = predict(features_BD, weights_KD).cpu()
    in_top_B = None
    if len(weights_KD) >= TOP:
        in_top_B = (logits_BK.topk(TOP, dim=1).indices == labels_B[:, None]).any(dim=1)
    chances_BK = logits_BK.double().softmax(dim=1)
    return Answers(
        labels_B, predicted_B, in_top_B, chances_BK.gather(1, predicted_B[:, None])[:, 0]
    )


def joined(batches: Sequence[Answers]) -> Answers:
    """One record of the answers to all batches, in order."""
    tops = [batch.in_top_N for batch in batches if batch.in_top_N is not None]
    return Answers(
        labels_N=torch.cat([batch.labels_N for batch in batches]),
        predicted_N=torch.cat([batch.predicted_N for batch in batches]),
        in_top_N=torch.cat(tops) if tops else None,
        confidence_N=torch.cat([batch.confidence_N for batch in batches]),
    )


def mean_per_class(answers: Answers) -> float:
    """Mean over the classes that have images of the share of theirs that is recognised; percent.

    Source: docs/method.md, Measures.
    """
    num_classes = int(answers.labels_N.max()) + 1
    images_K = torch.bincount(answers.labels_N, minlength=num_classes)
    right_K = torch.bincount(answers.labels_N[answers.right_N], minlength=num_classes)
    there_K = images_K > 0
    return float(100.0 * (right_K[there_K].double() / images_K[there_K]).mean())


def calibration_error(answers: Answers) -> float:
    """Expected calibration error over 15 equal bins of confidence; percent points.

    Bin b holds the images whose confidence is above (b - 1) / 15 and at most b / 15. The distance
    of its mean confidence from its accuracy, weighed by its share of the images, is summed up.
    Source: docs/method.md, Measures (Guo et al. 2017).
    """
    bins_N = (answers.confidence_N * NUM_BINS).ceil().long().clamp(1, NUM_BINS) - 1
    gaps_N = answers.right_N.double() - answers.confidence_N
    sums = torch.zeros(NUM_BINS, dtype=torch.float64).index_add(0, bins_N, gaps_N)
    return float(100.0 * sums.abs().sum() / len(bins_N))


@dataclass(frozen=True, eq=False)
class ClassesSeen:
    """One classifier over the classes of all tasks seen: it is not told an image's task.

    `weights_UD` has a row a class of each task, one task after the other; classes of equal names
    are one class to it: `names_U` holds a number a name, int64.
    """

    weights_UD: Tensor
    names_U: Tensor

    @classmethod
    def of(cls, weights: Sequence[Tensor], names: Sequence[Sequence[str]]) -> "ClassesSeen":
        """Join the classifiers (K, D) of the tasks seen with the names of their K classes."""
        row_of: dict[str, int] = {}
        numbers = [row_of.setdefault(name, len(row_of)) for task in names for name in task]
        return cls(torch.cat(list(weights)), torch.tensor(numbers))

    def predict(self, features_BD: Tensor) -> Tensor:
        """The most similar of all classes, int64 (B,) on the CPU: a row of `weights_UD`."""
        return predict(features_BD, self.weights_UD).cpu()

    def right(self, predicted_N: Tensor, labels_N: Tensor, start: int) -> Tensor:
        """Which answers name the label's class, bool (N,); the task's first row is `start`."""
        return self.names_U[predicted_N] == self.names_U[labels_N + start]
