"""How many replay pairs of earlier tasks a held-out classifier recognises, of finished runs.

    python -m deployments.miniature.recognisability SEQUENCE ... [--store STORE]

For each task a small convolutional network learns the task's real training images: nothing of CLIP
and nothing of the generator is in it. It then names the class of each replay pair that was made
from a prompt of that task for a later one. Runs whose names differ in their seed alone (as
`gift compare` names them) are also shown as one row: mean and deviation.

Letters: N images, B of a batch, K classes, H x W pixels.
"""

import argparse
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gift_core.errors import StoreError
from gift_core.prompts import format_prompt
from tasks.images import decode_rgb
from tasks.manifests import PairsManifest, SequenceManifest
from tasks.replay import load_pairs
from tasks.report import load_sequence_manifest
from tasks.sequence import SequenceSettings, TaskSettings
from tasks.store.address import open_store
from tasks.store.objects import ObjectStore
from tasks.store.outputs import find_output
from tasks.store.shards import ReplayPair

NUM_STEPS, BATCH_SIZE, PEAK_RATE = 800, 64, 4e-3
LARGEST_SHIFT = 3  # pixels
Counts = dict[str, tuple[int, int]]
"""Of each task: pairs recognised, and pairs in all."""


def as_tensor(pictures: Sequence[np.ndarray]) -> Tensor:
    """uint8 pictures of one size (H, W, 3) as (N, 3, H, W) from -1 to 1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def network(num_classes: int, side: int) -> nn.Sequential:
    """Three convolutions, each halving the picture, and a linear layer."""
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    width = 64 * (side // 8) ** 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(width, num_classes))


def trained(images_NCHW: Tensor, labels_N: Tensor, num_steps: int = NUM_STEPS) -> nn.Sequential:
    """A network that has learnt labelled images, shifted, lightened and made noisy; seed 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = network(int(labels_N.max()) + 1, images_NCHW.shape[-1])
        optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=num_steps)
        for _ in range(num_steps):
            rows_B = torch.randint(len(labels_N), (BATCH_SIZE,))
            loss = nn.functional.cross_entropy(
                net(_disturbed(images_NCHW[rows_B])), labels_N[rows_B], label_smoothing=0.1
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    return net.eval()


def _disturbed(images_BCHW: Tensor) -> Tensor:
    down, right = torch.randint(-LARGEST_SHIFT, LARGEST_SHIFT + 1, (2,)).tolist()
    contrast_B111, light_B111 = 1 + 0.2 * torch.randn(2, len(images_BCHW), 1, 1, 1)
    shifted_BCHW = torch.roll(images_BCHW, (down, right), (2, 3))
    return shifted_BCHW * contrast_B111 + light_B111 - 1 + 0.1 * torch.randn(shifted_BCHW.shape)


@torch.no_grad()
def num_right(net: nn.Module, images_NCHW: Tensor, labels_N: Tensor) -> int:
    """How many images are given their label."""
    return int((net(images_NCHW).argmax(dim=1) == labels_N).sum())


class HeldOut:
    """The classifier of one task, and what it recognises of that task's real test images."""

    def __init__(self, task: TaskSettings) -> None:
        names = task.class_names or task.data.open_split("train").class_names or ()
        prompts = [format_prompt(task.templates[0], name) for name in names]
        self._label_of = {prompt: label for label, prompt in enumerate(prompts)}
        self._net = trained(*self._read(task, "train"))
        images_NCHW, labels_N = self._read(task, "test")
        self.test_percent = 100.0 * num_right(self._net, images_NCHW, labels_N) / len(labels_N)

    def counts(self, pairs: Sequence[ReplayPair]) -> tuple[int, int]:
        """How many of the pairs that show this task's prompts it recognises, and of how many."""
        own = [pair for pair in pairs if pair.prompt in self._label_of]
        if not own:
            return 0, 0
        pictures = [np.asarray(decode_rgb(pair.image_bytes, pair.prompt)) for pair in own]
        labels_N = torch.tensor([self._label_of[pair.prompt] for pair in own])
        return num_right(self._net, as_tensor(pictures), labels_N), len(own)

    def _read(self, task: TaskSettings, name: str) -> tuple[Tensor, Tensor]:
        split = task.data.open_split(name)
        pictures = [np.asarray(split.image(row)) for row in range(len(split))]
        return as_tensor(pictures), torch.from_numpy(split.labels_N)


def replayed(store: ObjectStore, manifest: SequenceManifest) -> list[ReplayPair]:
    """Every replay pair of a run; StoreError when some are gone."""
    pairs: list[ReplayPair] = []
    for reference in manifest.pairs:
        found = find_output(store, PairsManifest, *reference.split("/"))
        if found is None:
            raise StoreError(f"{store.url}/outputs/{reference} is gone; run the sequence again")
        pairs += load_pairs(store, found)
    return pairs


def recognised(
    store: ObjectStore, names: Sequence[str]
) -> tuple[dict[str, Counts], dict[str, HeldOut]]:
    """Count for each run and each task that is replayed; the classifiers that did."""
    classifiers: dict[str, HeldOut] = {}
    runs: dict[str, Counts] = {}
    for name in names:
        manifest = load_sequence_manifest(store, name)
        pairs = replayed(store, manifest)
        runs[name] = {}
        for task in SequenceSettings.model_validate(manifest.settings).tasks[:-1]:
            if task.name not in classifiers:
                classifiers[task.name] = HeldOut(task)
            runs[name][task.name] = classifiers[task.name].counts(pairs)
    return runs, classifiers


def percents(counts: Counts) -> dict[str, float]:
    """Of each task, and of all its pairs together, the share that is recognised."""
    whole = counts | {"all": tuple(map(sum, zip(*counts.values(), strict=True)))}
    return {task: 100.0 * right / total for task, (right, total) in whole.items() if total}


def table(runs: Mapping[str, Counts], classifiers: Mapping[str, HeldOut]) -> str:
    """A markdown table: the classifiers on real test images, each run, each group of seeds."""
    tasks = [*classifiers, "all"]
    lines = [f"| of | {' | '.join(tasks)} |", f"| --- |{' ---: |' * len(tasks)}"]
    real = [f"{each.test_percent:.1f}" for each in classifiers.values()]
    lines.append(f"| real test images | {' | '.join(real)} | - |")
    groups: dict[str, list[dict[str, float]]] = defaultdict(list)
    for name, counts in runs.items():
        shares = percents(counts)
        groups[re.sub(r"-seed-\d+$", "", name)].append(shares)
        lines.append(f"| {name} | {' | '.join(_cell([shares], task) for task in tasks)} |")
    for name, rows in groups.items():
        if len(rows) > 1:
            cells = " | ".join(_cell(rows, task) for task in tasks)
            lines.append(f"| {name}, {len(rows)} seeds | {cells} |")
    return "\n".join(lines)


def _cell(rows: Sequence[Mapping[str, float]], task: str) -> str:
    values = [row[task] for row in rows if task in row]
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else "-"
    return f"{statistics.fmean(values):.1f} +- {statistics.stdev(values):.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sequences", nargs="+", help="names of finished runs in the store")
    parser.add_argument("--store", default=str(Path(".gift") / "store"), help="folder or s3://")
    args = parser.parse_args()
    print(table(*recognised(open_store(args.store), args.sequences)))


if __name__ == "__main__":
    main()
