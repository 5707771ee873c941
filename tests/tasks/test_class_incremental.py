"""Class-incremental learning of scikit-learn's handwriting: ten classes in five steps of two.

Avg and Last are worked out here by open_clip alone, from the models that the steps left.
"""

from dataclasses import dataclass
from pathlib import Path

import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from tasks.check import Plan, check_sequence
from tasks.evaluate import evaluate
from tasks.finetune import finetune
from tasks.manifests import ModelManifest, ScoresManifest, SequenceManifest
from tasks.pretrained import take_pretrained
from tasks.report import load_summary, report
from tasks.score_rows import scores_rows
from tasks.store.objects import FolderStore
from tasks.store.outputs import fetch_output
from tests.worlds import tiny_sequence, write_digits

STEPS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
NUM_TEST = 12  # of each class: all tasks have as many
TEMPLATE = "a photo of the handwritten digit {}."


@dataclass(frozen=True)
class Learnt:
    store: FolderStore
    plan: Plan
    models: list[ModelManifest]
    rows: list[ScoresManifest]
    manifest: SequenceManifest


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    """Plain fine-tuning, a few steps a task: enough to learn, and to forget."""
    folder = tmp_path_factory.mktemp("digits")
    for step in STEPS:
        write_digits(folder / f"digits-{step[0]}-{step[1]}", step, 30, NUM_TEST)
    store = FolderStore(folder / "store")
    names = [f"digits-{first}-{second}" for first, second in STEPS]
    sequence = tiny_sequence(
        folder,
        store.url,
        method="finetune",
        tasks=[
            {"name": each, "data": {"kind": "parquet", "path": str(folder / each)}}
            | {"templates": [TEMPLATE]}
            for each in names
        ],
        panel=[],
        finetune={"num_steps": 12, "warmup_steps": 2, "batch_size": 16, "learning_rate": 3e-4},
        evaluation={"batch_size": 64},
    )
    plan = check_sequence(sequence, store)
    models = [take_pretrained.fn(store, sequence.model, plan.model_identity).manifest]
    for task in plan.tasks:
        models.append(finetune.fn(store, task, 7, models[-1], None, sequence.execution).manifest)
    settings = sequence.evaluation, sequence.execution.cache
    rows = [evaluate.fn(store, model, plan.tasks, (), *settings).manifest for model in models]
    manifest = report.fn(store, sequence, models, (), (), rows).manifest
    return Learnt(store, plan, models, rows, manifest)


def accuracy_by_hand(learnt: Learnt, step: int, folder: Path) -> float:
    """Percent of the test images of the digits seen that open_clip names among those digits."""
    fetch_output(learnt.store, learnt.models[step], folder)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    splits = [task.data.open_split("test") for task in learnt.plan.tasks[:step]]
    images = torch.stack([preprocess(each.image(i)) for each in splits for i in range(len(each))])
    digits = [
        2 * number + int(label) for number, each in enumerate(splits) for label in each.labels_N
    ]
    with torch.no_grad():
        texts = model.encode_text(tokenizer([TEMPLATE.format(n) for n in range(2 * step)]))
        features = normalize(model.encode_image(images), dim=1)
    answers = (features @ normalize(texts, dim=1).T).argmax(dim=1)
    return 100.0 * sum(int(a) == b for a, b in zip(answers, digits, strict=True)) / len(digits)


def test_avg_and_last_are_those_worked_out_by_hand(learnt: Learnt, tmp_path: Path) -> None:
    """Avg: the mean over the five steps of the accuracy on the digits seen. Last: on all ten."""
    by_hand = [accuracy_by_hand(learnt, step, tmp_path / str(step)) for step in range(1, 6)]
    assert learnt.manifest.classes_seen == pytest.approx(by_hand)
    assert load_summary(learnt.store, learnt.manifest)["classes_seen"] == {
        "steps": pytest.approx(by_hand),
        "average": pytest.approx(sum(by_hand) / 5),
        "last": pytest.approx(by_hand[-1]),
    }
    assert len(set(by_hand)) > 2, "else the steps could be mixed up unnoticed"
    assert by_hand[0] > 50, "two digits are told apart after the first step"


def test_not_told_the_task_is_never_easier(learnt: Learnt) -> None:
    for number, row in enumerate(learnt.rows):
        for score in row.tasks[:number]:
            assert score.num_correct_seen is not None
            assert score.num_correct_seen <= score.num_correct
        assert all(score.num_correct_seen is None for score in row.tasks[number:])
    first = learnt.rows[1].tasks[0]
    assert first.num_correct_seen == first.num_correct, "no other classes are seen yet"


def test_the_report_shows_them(learnt: Learnt) -> None:
    page = learnt.store.read_bytes("reports/tiny/report.html").decode()
    seen = learnt.manifest.classes_seen
    assert f"Avg {sum(seen) / 5:.2f}, Last {seen[-1]:.2f}" in page
    assert f"<strong>{seen[2]:.1f}</strong>" in page
    assert "In other measures, after digits-8-9" in page
    last = scores_rows(learnt.rows[-1])[0]
    assert last["among all classes seen, %"] == round(
        100 * (learnt.rows[-1].tasks[0].num_correct_seen or 0) / (2 * NUM_TEST), 2
    )
    assert "top-5, %" not in last, "two classes have no five most similar ones"
    assert 0 <= float(last["calibration error, %"]) <= 100
