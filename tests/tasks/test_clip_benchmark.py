"""The same answers as CLIP_benchmark, image for image: same model, same data, two data sets.

Its `evaluate` cannot be called with numpy 2.4 (release 1.6.2 takes the float of an array of one),
so its classifier and its loop over the images are, and what it computes of their logits is asked of
the same functions of torch and scikit-learn.
"""

from pathlib import Path

import open_clip
import pytest
from clip_benchmark.metrics import zeroshot_classification as reference
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tasks.check import PlannedTask, check_sequence
from tasks.data.splits import Split
from tasks.evaluate import evaluate
from tasks.pretrained import take_pretrained
from tasks.store.checkpoints import load_tensors
from tasks.store.objects import FolderStore
from tasks.store.outputs import fetch_verified
from tests.worlds import CLIP, tiny_sequence, write_digits


class Preprocessed(Dataset[tuple[Tensor, int]]):
    """A split as open_clip's own preprocessing gives it to CLIP_benchmark."""

    def __init__(self, task: PlannedTask, split: Split, preprocess: object) -> None:
        self.classes = task.class_names
        self._split, self._preprocess = split, preprocess

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self._preprocess(self._split.image(index))  # type: ignore[operator]
        return image, int(self._split.labels_N[index])


@pytest.fixture(scope="module")
def data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Handwriting in ten classes and squares in two, several templates each."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder, range(10), 1, 15)
    return [
        {
            "name": "digits",
            "data": {"kind": "parquet", "path": str(folder)},
            "templates": ["a photo of the handwritten digit {}.", "a sketch of the digit {}."],
        },
        {
            "name": "squares",
            "data": {"kind": "parquet", "path": str(tiny_data / "warm")},
            "class_names": ["red square", "green square"],
            "templates": ["a photo of a {}.", "a picture of a {}.", "{}"],
        },
    ]


def test_every_image_gets_the_same_answer(data: list[dict], tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    sequence = tiny_sequence(tmp_path, store.url, method="finetune", tasks=data, panel=[])
    plan = check_sequence(sequence, store)
    theta_0 = take_pretrained.fn(store, sequence.model, plan.model_identity).manifest
    row = evaluate.fn(
        store, theta_0, plan.tasks, (), sequence.evaluation, str(tmp_path / "cache")
    ).manifest

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{CLIP}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{CLIP}")
    model.eval()
    for task, score, ref in zip(plan.tasks, row.tasks, row.files, strict=True):
        images = Preprocessed(task, task.data.open_split("test"), preprocess)
        batches = DataLoader(images, batch_size=7)
        templates = [each.replace("{}", "{c}") for each in task.templates]
        given = (tokenizer, list(task.class_names), templates, "cpu")
        classifier = reference.zero_shot_classifier(model, *given, amp=False)
        logits, labels = reference.run_classification(model, classifier, batches, "cpu", amp=False)
        fetch_verified(store, ref, tmp_path / ref.name)
        ours = load_tensors(tmp_path / ref.name)["predicted"]
        assert ours.tolist() == logits.argmax(dim=1).tolist(), task.name
        assert len(set(ours.tolist())) > 1, "one answer for all would show little"

        predicted = logits.argmax(dim=1)
        assert score.num_correct == int((predicted == labels).sum())
        recall = reference.balanced_accuracy_score(labels, predicted)
        assert score.mean_per_class == pytest.approx(100 * recall)
        if len(images.classes) < 5:
            assert score.num_in_top is None
        else:
            in_top = logits.topk(5, dim=1).indices == labels[:, None]
            assert score.num_in_top == int(in_top.sum())
