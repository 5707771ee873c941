"""Which of several pictures are kept: generated ones of a prompt, or real ones of a task.

Letters: C pictures made for one pair, K pairs kept before, B pictures, P prompts, D features. All
features are L2-normalised.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from gift_core.prompts import MAX_TRIES
from gift_core.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

Verdict = Literal["kept", "outranked", "unsure", "duplicate"]


class Selection(Settings):
    """Off by default, as in the paper; what is set here asks the teacher about every picture."""

    candidates: int = Field(
        default=1,
        ge=1,
        le=MAX_TRIES,
        description="Pictures made for a pair, of which the one that the teacher recognises best "
        "is kept: a keep-rate of one in this many",
    )
    min_confidence: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Probability that the teacher must give a picture's own prompt among all "
        "prompts of the task; 0: any",
    )
    max_similarity: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Cosine of the teacher's features above which a picture is a near-duplicate "
        "of another one of its prompt in its shard; 1: none is",
    )

    @property
    def asks_teacher(self) -> bool:
        """Whether anything is selected."""
        return self != Selection()


def confidence(
    image_features_BD: "Tensor", text_features_PD: "Tensor", own_B: "Tensor", logit_scale: float
) -> "Tensor":
    """Compute the probability (B,) that each picture is given its own prompt, row own_B of P."""
    probabilities_BP = (logit_scale * image_features_BD @ text_features_PD.T).softmax(dim=1)
    return probabilities_BP.gather(1, own_B[:, None])[:, 0]


def choose(
    features_CD: "Tensor", confidences: Sequence[float], kept_KD: "Tensor", selection: Selection
) -> tuple[Verdict, ...]:
    """Judge the pictures of one pair, at most one of which is "kept".

    It is the most confident one (of equal ones the first) that is sure enough and no near-duplicate
    of the pictures `kept_KD` of the same prompt.
    """
    similar_C = [False] * len(features_CD)
    if len(kept_KD):
        similar_C = ((features_CD @ kept_KD.T).amax(dim=1) > selection.max_similarity).tolist()
    verdicts: list[Verdict] = []
    for sure, similar in zip(confidences, similar_C, strict=True):
        unsure = sure < selection.min_confidence
        verdicts.append("unsure" if unsure else "duplicate" if similar else "outranked")
    eligible = [number for number, verdict in enumerate(verdicts) if verdict == "outranked"]
    if eligible:
        verdicts[max(eligible, key=lambda number: confidences[number])] = "kept"
    return tuple(verdicts)


def most_confident(
    confidences: Sequence[float], labels: Sequence[int], num_images: int
) -> tuple[int, ...]:
    """Choose the images that are recognised best, evenly over the classes.

    First the most confident image of each class, then each class's second, and so on until there
    are `num_images`; a class that runs out leaves its share to the others. Within a round the more
    confident class comes first, of equal ones the image that comes first. Returns indices in
    ascending order, all of them where there are no more images. Source: LoRA-Loop, arXiv
    2507.13568.
    """
    order = sorted(range(len(labels)), key=lambda index: -confidences[index])
    rounds: list[tuple[int, int]] = []
    seen: Counter[int] = Counter()
    for place, index in enumerate(order):
        rounds.append((seen[labels[index]], place))
        seen[labels[index]] += 1
    return tuple(sorted(order[place] for _, place in sorted(rounds)[:num_images]))
