"""What a run of a sequence would do and need, before any of it: stages, storage, time, what lacks.

Times and sizes are estimates from published or assumed rates, which `RATES` names; nothing here was
timed by us on a GPU.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tasks.data.sources import DataSource
from tasks.data_report import Finding, look_at_data
from tasks.models.at_hand import ModelSize, missing_generator, missing_model, size_of
from tasks.models.encoders import best_device
from tasks.models.generators import DiffusersSettings
from tasks.sequence import SequenceSettings, TaskSettings

PICTURES_A_SECOND, COMPILED_PICTURES_A_SECOND = 0.99, 1.50
PUBLISHED_SIZE, PUBLISHED_STEPS = 512, 50
PEAK_OPERATIONS, ASSUMED_SHARE = 312e12, 0.4
TEXT_TOKENS = 16
PNG_BYTES_A_PIXEL = 1.6
RATES = (
    f"pictures: Stable Diffusion v1.5 on an A100, {PUBLISHED_SIZE} x {PUBLISHED_SIZE}, "
    f"{PUBLISHED_STEPS} steps: {PICTURES_A_SECOND} a second, {COMPILED_PICTURES_A_SECOND} compiled "
    "in batches of 16 (published in diffusers' documentation), scaled by steps and area",
    f"towers: counted operations at {ASSUMED_SHARE:.0%} (assumed) of an A100's published "
    f"{PEAK_OPERATIONS / 1e12:.0f}e12 a second in bf16, texts of {TEXT_TOKENS} tokens; a backward "
    "pass is two forward passes",
    f"sizes: weights in fp32; {PNG_BYTES_A_PIXEL} bytes a pixel of a PNG (assumed)",
)


@dataclass(frozen=True)
class StageForecast:
    """A kind of stage: how often it runs, on what, and GPU seconds (None where it wants no GPU)."""

    name: str
    runs: int
    work: str
    gpu_seconds: float | None = None


@dataclass(frozen=True)
class TaskForecast:
    """A task, or a data set of the panel, which is learnt in 0 steps; None is not known."""

    name: str
    num_steps: int
    learning_rate: float | None
    num_pairs: int
    num_classes: int | None
    num_train: int | None
    num_test: int | None


@dataclass(frozen=True)
class Forecast:
    """A run that has not begun; `storage` in bytes by what is stored, `missing` in sentences."""

    sequence: SequenceSettings
    size: ModelSize | None
    tasks: tuple[TaskForecast, ...]
    panel: tuple[TaskForecast, ...]
    stages: tuple[StageForecast, ...]
    storage: dict[str, float]
    missing: tuple[str, ...]


def forecast(sequence: SequenceSettings) -> Forecast:
    """Foresee a run. Data sets that are there are read for their digests; nothing is written."""
    findings = look_at_data(sequence)
    size = size_of(sequence.model)
    tasks = tuple(
        _of_task(sequence, settings, found)
        for settings, found in zip(sequence.tasks, findings, strict=False)
    )
    panel = tuple(_of_panel(sequence, found) for found in findings[len(tasks) :])
    missing = [missing_model(sequence.model)]
    if sequence.objective.uses_replay:
        synthesis = sequence.synthesis
        missing.append(missing_generator(synthesis.generator, synthesis.adaptation is not None))
    if best_device().type == "cpu":
        missing.append("no GPU on this machine: on its CPUs the work takes many times as long")
    problems = [problem for each in findings for problem in each.problems]
    return Forecast(
        sequence=sequence,
        size=size,
        tasks=tasks,
        panel=panel,
        stages=tuple(_stages(sequence, size, tasks, panel)),
        storage=_storage(sequence, size),
        missing=(*(each for each in missing if each), *problems),
    )


def _of_task(sequence: SequenceSettings, settings: TaskSettings, found: Finding) -> TaskForecast:
    finetune = sequence.finetune_settings(settings)
    return TaskForecast(
        name=settings.name,
        num_steps=finetune.num_steps,
        learning_rate=finetune.learning_rate,
        num_pairs=sequence.synthesis.num_pairs if sequence.objective.uses_replay else 0,
        num_classes=_num_classes(found),
        num_train=_num_used(found, "train"),
        num_test=_num_used(found, sequence.evaluation.split),
    )


def _of_panel(sequence: SequenceSettings, found: Finding) -> TaskForecast:
    num_test = _num_used(found, sequence.evaluation.split)
    return TaskForecast(found.name, 0, None, 0, _num_classes(found), None, num_test)


def _num_classes(found: Finding) -> int | None:
    """Classes that are chosen: as found, else as published."""
    data: DataSource = found.settings.data
    if data.class_numbers is not None:
        return len(data.class_numbers)
    expected = data.expected("test")
    return found.splits[0].num_classes if found.splits else expected and expected.num_classes


def _num_used(found: Finding, split: str) -> int | None:
    """Images that are chosen of a split: as found, else reckoned from the published number."""
    for each in found.splits:
        if each.name == split:
            return each.num_used
    data: DataSource = found.settings.data
    drawn = data.held_out is not None and split in {"train", "validation"}
    expected = data.expected("train" if drawn else split)
    num_classes = _num_classes(found)
    if expected is None or num_classes is None:
        return None
    share = num_classes / expected.num_classes
    if drawn and data.held_out is not None:
        share *= data.held_out if split == "validation" else 1 - data.held_out
    number = round(expected.num_images * share)
    return min(number, num_classes * data.shots) if data.shots and split == "train" else number


def _stages(
    sequence: SequenceSettings,
    size: ModelSize | None,
    tasks: tuple[TaskForecast, ...],
    panel: tuple[TaskForecast, ...],
) -> Iterable[StageForecast]:
    number, synthesis, batch = len(tasks), sequence.synthesis, sequence.finetune.batch_size
    yield StageForecast("pretrained", 1, "theta_0 into the store")
    num_pairs = sum(task.num_pairs for task in tasks)
    if num_pairs:
        shards = -(-synthesis.num_pairs // synthesis.pairs_per_shard) * number
        work = f"{num_pairs:,} pairs in {shards} shards"
        if synthesis.generator.batch_size == "auto":
            work += "; batch size auto: found on the GPU, 16 on a CPU"
        yield StageForecast("synthesize", number, work, _synthesis_seconds(sequence, num_pairs))
    steps = sum(task.num_steps for task in tasks)
    images = f"{batch} images" + (f" and {batch} pairs" if num_pairs else "")
    seconds = size and sum(_finetune_operations(sequence, size, task) for task in tasks) / _rate()
    yield StageForecast("finetune", number, f"{steps:,} steps of {images}", seconds)
    if num_pairs and (adaptation := synthesis.adaptation) is not None:
        work = f"{adaptation.num_steps * number:,} steps of {adaptation.batch_size} images"
        yield StageForecast("adapt", number, work, _adaptation_seconds(sequence, number))
    if num_pairs:
        seconds = size and num_pairs * 3 * _pair_operations(size) / _rate()
        work = f"{num_pairs:,} pairs, forward and backward"
        yield StageForecast("estimate-fisher", number, work, seconds)
    scored = [task.num_test for task in (*tasks, *panel)]
    known = sum(count for count in scored if count is not None)
    unknown = scored.count(None)
    seconds = size and (number + 1) * known * size.image_operations / _rate()
    work = f"{number + 1} models, each on {known:,} images of {len(scored)} data sets"
    work += f", {unknown} of them not counted" if unknown else ""
    yield StageForecast("evaluate", number + 1, work, seconds)
    yield StageForecast("promote", number, "the gate, and the head")
    yield StageForecast("report", 1, "summary.json, sequence.json, report.html")


def _rate() -> float:
    return ASSUMED_SHARE * PEAK_OPERATIONS


def _text_operations(size: ModelSize) -> float:
    return size.text_operations * min(1.0, TEXT_TOKENS / size.context_length)


def _pair_operations(size: ModelSize) -> float:
    return size.image_operations + _text_operations(size)


def _finetune_operations(sequence: SequenceSettings, size: ModelSize, task: TaskForecast) -> float:
    """Forward and backward of images, class prompts and pairs; the teacher's pass once a pair."""
    batch = sequence.finetune.batch_size
    step = batch * size.image_operations + (task.num_classes or 0) * _text_operations(size)
    if task.num_pairs:
        step += batch * _pair_operations(size)
    return 3 * step * task.num_steps + task.num_pairs * _pair_operations(size)


def _synthesis_seconds(sequence: SequenceSettings, num_pairs: int) -> float:
    generator = sequence.synthesis.generator
    if not isinstance(generator, DiffusersSettings):
        return 0.0
    batched = generator.compile and (generator.batch_size == "auto" or generator.batch_size >= 16)
    rate = COMPILED_PICTURES_A_SECOND if batched else PICTURES_A_SECOND
    area = ((generator.image_size or PUBLISHED_SIZE) / PUBLISHED_SIZE) ** 2
    candidates = max(1, sequence.synthesis.selection.candidates)
    return num_pairs * candidates * area * generator.num_steps / PUBLISHED_STEPS / rate


def _adaptation_seconds(sequence: SequenceSettings, num_tasks: int) -> float:
    """A step passes each image forward and backward through the UNet: 3 passes.

    A picture that is made costs two passes a denoising step, for guidance; the published rate
    tells how long they take.
    """
    generator, adaptation = sequence.synthesis.generator, sequence.synthesis.adaptation
    if adaptation is None or not isinstance(generator, DiffusersSettings):
        return 0.0
    passes = 3.0 * adaptation.num_steps * adaptation.batch_size * num_tasks
    area = ((generator.image_size or PUBLISHED_SIZE) / PUBLISHED_SIZE) ** 2
    return passes * area / (2 * PUBLISHED_STEPS) / PICTURES_A_SECOND


def _storage(sequence: SequenceSettings, size: ModelSize | None) -> dict[str, float]:
    """Bytes that stay in the store, and those of a checkpoint, which go when its task is learnt."""
    number, synthesis = len(sequence.tasks), sequence.synthesis
    num_pairs = number * synthesis.num_pairs if sequence.objective.uses_replay else 0
    stored: dict[str, float] = {}
    if size is not None:
        weights = 4.0 * size.num_parameters
        stored[f"{number + 1} models"] = (number + 1) * weights
        if num_pairs:
            stored[f"{number} Fisher diagonals"] = number * weights
    if num_pairs and isinstance(synthesis.generator, DiffusersSettings):
        pixels = (synthesis.generator.image_size or PUBLISHED_SIZE) ** 2
        stored[f"{num_pairs:,} replay pairs"] = num_pairs * pixels * PNG_BYTES_A_PIXEL
    if size is not None and sequence.execution.checkpoint_every:
        stored["a checkpoint, while a task is learnt"] = 3 * 4.0 * size.num_parameters
    return stored
