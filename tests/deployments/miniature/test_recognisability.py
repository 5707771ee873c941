"""The held-out classifier, and the two sequences that it looks at: they differ in one setting."""

from pathlib import Path

import pytest
import torch

from deployments.miniature.recognisability import (
    HeldOut,
    as_tensor,
    num_right,
    percents,
    table,
    trained,
)
from tasks.comparison import read_contestants
from tasks.sequence import load_sequence
from tasks.store.shards import ReplayPair
from tests.worlds import ROOT, png, square, tiny_sequence

SEQUENCES = ROOT / "deployments" / "sequences"


def test_a_classifier_learns_and_is_the_same_each_time() -> None:
    labels_N = torch.arange(24) % 2
    images = as_tensor([square(("red", "blue")[n % 2], n) for n in range(24)])
    one, other = trained(images, labels_N, 20), trained(images, labels_N, 20)
    unseen = as_tensor([square(("red", "blue")[n % 2], 100 + n) for n in range(10)])
    assert num_right(one, unseen, labels_N[:10]) == 10
    assert torch.equal(one(unseen), other(unseen))


def test_pairs_of_other_prompts_are_not_counted(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.miniature.recognisability.NUM_STEPS", 20)
    monkeypatch.setattr(
        "deployments.miniature.recognisability.trained",
        lambda images, labels: trained(images, labels, 20),
    )
    known = HeldOut(tiny_sequence(tiny_data, "unused").tasks[0])
    assert known.test_percent == 100.0

    def pair(colour: str, prompt: str) -> ReplayPair:
        image = png(square(colour, 55))
        return ReplayPair(image, f"a photo of a {prompt}.", 0, "generator", "cold", 0)

    right, wrong = pair("red", "red square"), pair("green", "red square")
    assert known.counts([right, wrong, pair("red", "blue star")]) == (1, 2)
    assert known.counts([]) == (0, 0)


def test_the_table_joins_seeds() -> None:
    runs = {
        "a-seed-0": {"digits": (8, 10), "photos": (1, 10)},
        "a-seed-1": {"digits": (6, 10), "photos": (3, 10)},
        "b": {"digits": (5, 10), "photos": (0, 0)},
    }
    assert percents(runs["a-seed-0"]) == {"digits": 80.0, "photos": 10.0, "all": 45.0}

    class Known:
        test_percent = 97.25

    lines = table(runs, {"digits": Known(), "photos": Known()}).splitlines()  # type: ignore[dict-item]
    assert lines[2] == "| real test images | 97.2 | 97.2 | - |"
    assert lines[-2] == "| b | 50.0 | - | 50.0 |"
    assert lines[-1] == "| a, 2 seeds | 70.0 +- 14.1 | 20.0 +- 14.1 | 45.0 +- 0.0 |"
    assert len(lines) == 7


def test_the_adapted_miniature_is_the_miniature_in_all_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    plain, adapted = (
        load_sequence(SEQUENCES / f"{name}.yaml") for name in ("miniature", "miniature-adapted")
    )
    assert adapted.synthesis.adaptation is not None
    without = adapted.synthesis.model_copy(update={"adaptation": None})
    assert adapted.model_copy(update={"name": plain.name, "synthesis": without}) == plain
    name, rows = read_contestants(
        [ROOT / "deployments" / "comparisons" / "miniature-adaptation.yaml"], ()
    )
    assert name == "miniature-adaptation"
    assert [(row.name, row.sequences[0].synthesis) for row in rows] == [
        ("plain", plain.synthesis),
        ("adapted", adapted.synthesis),
    ]
