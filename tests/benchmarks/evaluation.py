"""Time rows of the accuracy matrix against loading and decoding anew for every score.

`python -m tests.benchmarks.evaluation` scores models on tasks of photograph-sized JPEG pictures in
both ways, turn by turn, and compares the answers image for image. The models are the miniature's
CLIP, moved a little, its text tower as long as CLIP's own (77 tokens).

Plain: for each model and each task open_clip loads the model, encodes the prompts class by class
and decodes and preprocesses every picture, as scripts do that evaluate one checkpoint on one data
set. Ours: the stage evaluate, a row a model, into an empty store and an empty cache.

`--json FILE` writes `setting`, `seconds` and `processor_seconds` (of each turn), `ratio` (by the
clock: median, lowest, highest; of processor time) and `equality`. Exits with 1 when an answer
differs.
"""

import argparse
import io
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import normalize, pad

from tasks.check import PlannedDataSet, check_data_set
from tasks.data.parquet import ParquetData
from tasks.evaluate import evaluate
from tasks.manifests import ModelManifest
from tasks.models.encoders import best_device
from tasks.models.starting_model import CONFIG, WEIGHTS
from tasks.sequence import DataSetSettings, EvaluationSettings
from tasks.store.checkpoints import load_tensors, save_tensors
from tasks.store.objects import FolderStore, ObjectStore
from tasks.store.outputs import plan_output, read_verified, run_output
from tests.worlds import CLIP, write_split

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SHAPES = (
    "circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond", "hexagon",
    "crescent", "arrow", "ellipse",
)  # fmt: skip
CLASSES = [f"{colour} {shape}" for colour, shape in product(COLOURS, SHAPES)]
TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "a sketch of the {}.", "an image of {}.")
TEXT_LENGTH = 77  # of OpenAI's CLIP; the miniature's is 14
BATCH = 128

Answers = dict[tuple[int, str], list[int]]
"""The class that each image is given, by model and task."""


@dataclass(frozen=True)
class World:
    """Models in open_clip's `local-dir:` form, and tasks of JPEG pictures."""

    models: tuple[Path, ...]
    tasks: tuple[PlannedDataSet, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit code."""
    options = _parser().parse_args(arguments)
    results = measure(options)
    for way in ("plain", "ours"):
        clock, processor = (results[kind][way] for kind in ("seconds", "processor_seconds"))
        print(
            f"{way:5}: {statistics.median(clock):.2f} s by the clock, "
            f"{statistics.median(processor):.2f} s of processor time"
        )
    ratio, equality = results["ratio"], results["equality"]
    print(f"ratio {ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})")
    print(f"ratio of processor time {ratio['processor']:.2f}")
    print(f"{equality['different']} of {equality['answers']} answers differ")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if equality["equal"] else 1


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both ways, turn by turn."""
    clock: dict[str, list[float]] = {"plain": [], "ours": []}
    processor: dict[str, list[float]] = {"plain": [], "ours": []}
    different = num_answers = 0
    with TemporaryDirectory(prefix="gift-") as name:
        world = build_world(Path(name), options)
        plain(World(world.models[:1], world.tasks[:1]))  # what the first call sets up
        for turn in range(options.repeats):
            store = FolderStore(Path(name) / f"store-{turn}")
            stored = [_stored(store, path) for path in world.models]
            cache = Path(name) / f"cache-{turn}"
            both = partial(plain, world), partial(ours, store, stored, world.tasks, cache)
            found = []
            for way, score in zip(("plain", "ours"), both, strict=True):
                answers, seconds, busy = _timed(score)
                found.append(answers)
                clock[way].append(seconds)
                processor[way].append(busy)
                print(f"turn {turn + 1}, {way}: {seconds:.2f} s", file=sys.stderr, flush=True)
            for key, of_plain in found[0].items():
                pairs = list(zip(of_plain, found[1][key], strict=True))
                num_answers += len(pairs)
                different += sum(a != b for a, b in pairs)
    ratios = [a / b for a, b in zip(clock["plain"], clock["ours"], strict=True)]
    return {
        "setting": {k: str(v) for k, v in vars(options).items() if k != "json"},
        "seconds": clock,
        "processor_seconds": processor,
        "ratio": {
            "median": statistics.median(ratios),
            "lowest": min(ratios),
            "highest": max(ratios),
            "processor": sum(processor["plain"]) / sum(processor["ours"]),
        },
        "equality": {
            "equal": different == 0 and num_answers > 0,
            "answers": num_answers,
            "different": different,
        },
    }


def plain(world: World) -> Answers:
    """Load, encode and decode anew for every model and every task."""
    device = best_device()
    answers: Answers = {}
    for (number, path), task in product(enumerate(world.models), world.tasks):
        model, _, preprocess = open_clip.create_model_and_transforms(
            f"local-dir:{path}", device=device
        )
        tokenizer = open_clip.get_tokenizer(f"local-dir:{path}")
        model.eval()
        with torch.no_grad():
            classes = []
            for name in task.class_names:
                texts = tokenizer([template.replace("{}", name) for template in task.templates])
                each = normalize(model.encode_text(texts.to(device)), dim=1)
                classes.append(normalize(each.mean(dim=0), dim=0))
            weights = torch.stack(classes)
            split, found = task.data.open_split("test"), []
            for start in range(0, len(split), BATCH):
                rows = range(start, min(start + BATCH, len(split)))
                images = torch.stack([preprocess(split.image(row)) for row in rows]).to(device)
                features = normalize(model.encode_image(images), dim=1)
                found += (features @ weights.T).argmax(dim=1).tolist()
        answers[number, task.name] = found
    return answers


def ours(
    store: ObjectStore,
    models: Sequence[ModelManifest],
    tasks: tuple[PlannedDataSet, ...],
    cache: Path,
) -> Answers:
    """The stage evaluate: a row a model; the answers are read back from its outputs."""
    answers: Answers = {}
    for number, model in enumerate(models):
        settings = EvaluationSettings(batch_size=BATCH)
        row = evaluate.fn(store, model, tasks, (), settings, str(cache)).manifest
        for task, ref in zip(tasks, row.files, strict=True):
            file = cache / "answers.safetensors"
            file.write_bytes(read_verified(store, ref))
            answers[number, task.name] = load_tensors(file)["predicted"].tolist()
    return answers


def build_world(folder: Path, options: argparse.Namespace) -> World:
    """Write pictures and models; nothing here is timed."""
    generator = np.random.Generator(np.random.PCG64(0))
    size = (options.width, 3 * options.width // 4)
    fine = generator.normal(0, 12, (size[1], size[0], 3))
    tasks = []
    for number in range(options.tasks):
        path = folder / f"task-{number}"
        names = [*CLASSES[number:], *CLASSES[:number]][: options.classes]  # no two lists are equal
        labels = [image % len(names) for image in range(options.images)]
        pictures = [_photograph(generator, fine) for _ in labels]
        write_split(path / "test.parquet", pictures, labels, names)
        settings = DataSetSettings(
            name=path.name, data=ParquetData(path=str(path)), templates=TEMPLATES
        )
        tasks.append(check_data_set(path.name, settings, ("test",)))
    models = [folder / f"model-{number}" for number in range(options.models)]
    for seed, path in enumerate(models):
        _write_model(path, seed)
    return World(tuple(models), tuple(tasks))


def _write_model(folder: Path, seed: int) -> None:
    """The miniature's CLIP with every weight moved by about 1 %, and room for longer texts."""
    shutil.copytree(CLIP, folder)
    config = json.loads((CLIP / CONFIG).read_text())
    config["model_cfg"]["text_cfg"]["context_length"] = TEXT_LENGTH
    (folder / CONFIG).write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(seed)
    weights = load_tensors(CLIP / WEIGHTS)
    for weight in weights.values():
        weight *= 1 + 0.01 * torch.randn(weight.shape, generator=generator)
    places = weights["positional_embedding"]
    weights["positional_embedding"] = pad(places, (0, 0, 0, TEXT_LENGTH - len(places)))
    save_tensors(folder / WEIGHTS, weights, {})


def _photograph(generator: np.random.Generator, fine: NDArray[np.float64]) -> bytes:
    """A JPEG of coarse and fine structure, about as large a file as a photograph's."""
    height, width, _ = fine.shape
    coarse = Image.fromarray(generator.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) + fine
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _stored(store: ObjectStore, folder: Path) -> ModelManifest:
    """A model's folder as an output, as if it had been learnt."""
    planned = plan_output(
        ModelManifest, stage="finetune", name=folder.name, inputs={}, settings={"of": folder.name},
        architecture=f"local-dir:{CLIP}", parent=None, task=None, num_steps=0,
    )  # fmt: skip

    def make(directory: Path) -> None:
        for path in folder.iterdir():
            (directory / path.name).write_bytes(path.read_bytes())

    return run_output(store, planned, make).manifest


def _timed(score: Callable[[], Answers]) -> tuple[Answers, float, float]:
    """Answers, seconds by the clock and of processor time."""
    clock, busy = time.perf_counter(), time.process_time()
    found = score()
    return found, time.perf_counter() - clock, time.process_time() - busy


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.evaluation", description=__doc__
    )
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--images", type=int, default=60, help="test images of a task")
    parser.add_argument("--classes", type=int, default=96, help=f"of a task, up to {len(CLASSES)}")
    parser.add_argument("--width", type=int, default=1024, help="pixels of a picture")
    parser.add_argument("--repeats", type=int, default=2, help="turns")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
