"""Stage report: the sequence's own manifest, and one HTML file that a person can keep and print.

The manifest is content-addressed and names every output, so that the page can be drawn again from
the store alone. The page is a view: it tells times too, and goes with its sequence's manifest.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import prefect
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError
from prefect.cache_policies import NO_CACHE
from pydantic import ValidationError

from gift_core.errors import StoreError
from gift_core.gate import Failure
from gift_core.metrics import AccuracyMatrix, Incremental, summarise
from tasks import curves, figures
from tasks.artifacts import sample_pairs
from tasks.curves import first_and_last
from tasks.entries import Entry, entries_of
from tasks.images import decode_rgb
from tasks.manifests import (
    AdapterManifest,
    FisherManifest,
    Manifest,
    ModelManifest,
    PairsManifest,
    ScoresManifest,
    SequenceManifest,
    canonical_json,
    sha256_hex,
)
from tasks.progress import duration
from tasks.sequence import SequenceSettings
from tasks.standing import incremental_of
from tasks.store.history import read_history
from tasks.store.objects import ObjectStore
from tasks.store.outputs import (
    Produced,
    find_output,
    plan_output,
    read_verified,
    run_output,
)
from tasks.store.shards import ReplayPair

SUMMARY = "summary.json"
HELD_OUT = "held-out"
"""The panel's data set with this name holds classes that no stage has shown to the model."""
STAGES = (
    "pretrained", "synthesize", "finetune", "adapt", "estimate-fisher", "evaluate", "report",
)  # fmt: skip
NUM_SAMPLES = 24
THUMBNAIL_SIDE = 160  # pixels


@prefect.task(name="report", cache_policy=NO_CACHE, persist_result=False)
def report(
    store: ObjectStore,
    sequence: SequenceSettings,
    models: Sequence[ModelManifest],
    pairs: Sequence[PairsManifest],
    fishers: Sequence[FisherManifest],
    scores: Sequence[ScoresManifest],
    refused: Sequence[Failure] = (),
    adapters: Sequence[AdapterManifest] = (),
) -> Produced[SequenceManifest]:
    """Commit the manifest of a whole sequence, and see that its page is there.

    `scores` are the zero-shot row and then one after each task, in order; where the gate `refused`
    a model, the sequence ends with that model's task. Raises ValueError when they are not,
    StoreError when the store fails.
    """
    groups: dict[str, Sequence[Manifest]] = {"model": models, "pairs": pairs, "fisher": fishers}
    groups |= {"scores": scores, "adapter": adapters}
    manifest = _manifest(sequence, groups, scores, _baseline_digest(store, sequence), refused)

    def make(directory: Path) -> None:
        (directory / SUMMARY).write_bytes(canonical_json(_summary(manifest)) + b"\n")

    produced = run_output(store, manifest, make)
    if not (produced.reused and _has_view(store, produced.manifest)):
        write_view(store, produced.manifest)
    return produced


def load_sequence_manifest(store: ObjectStore, name: str) -> SequenceManifest:
    """Read the manifest of a sequence by its name; StoreError when there is none or it is torn."""
    path = report_path(name, "sequence.json")
    if not store.exists(path):
        paths = [path for path in store.list("reports") if path.endswith("/sequence.json")]
        known = ", ".join(path.split("/")[1] for path in paths)
        raise StoreError(
            f"no sequence {name!r} in {store.url}; it has {known or 'none yet: run one first'}"
        )
    try:
        return SequenceManifest.model_validate_json(store.read_bytes(path), strict=True)
    except ValidationError as error:
        raise StoreError(
            f"{store.url}/{path} is not a sequence's manifest ({error.errors()[0]['msg']}); "
            "run the sequence again, what is finished is kept"
        ) from None


def load_summary(store: ObjectStore, manifest: SequenceManifest) -> dict[str, Any]:
    """Read the metrics of a sequence as its summary.json holds them, verified."""
    summary: dict[str, Any] = json.loads(read_verified(store, manifest.file(SUMMARY)))
    return summary


def report_address(store: ObjectStore, name: str) -> str:
    """Where the page of a sequence is: a path or an s3:// address."""
    return f"{store.url}/{report_path(name, 'report.html')}"


def write_view(store: ObjectStore, manifest: SequenceManifest) -> None:
    """Draw the page and put it under the sequence's name; the manifest beside it comes last."""
    page = render_report(store, manifest)
    store.replace_bytes(report_path(manifest.name, "report.html"), page.encode("utf-8"))
    store.replace_bytes(report_path(manifest.name, "sequence.json"), _canonical(manifest))


def render_report(store: ObjectStore, manifest: SequenceManifest) -> str:
    """Draw the page of a sequence from what its store holds; StoreError when an output is gone."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    # As it is stored, with its keys in order: a fresh manifest and a stored one give one page.
    manifest = SequenceManifest.model_validate_json(_canonical(manifest))
    try:
        entries = entries_of(store, manifest)
        page = environment.get_template("report.html.j2").render(
            sequence=manifest, entries=entries, **_drawing(store, manifest, entries)
        )
    # Each manifest is whole, but who edited one can make them contradict each other.
    except (
        LookupError,
        ValueError,
        TypeError,
        RuntimeError,
        ArithmeticError,
        TemplateError,
    ) as error:
        raise StoreError(
            f"{store.url}: the outputs of {manifest.name} contradict each other ({error}); "
            "run `gift verify`, then the sequence again"
        ) from error
    return page.strip() + "\n"


def _drawing(
    store: ObjectStore, manifest: SequenceManifest, entries: Sequence[Entry]
) -> dict[str, object]:
    """What the template computes with and draws with."""
    unchanged = [manifest.zero_shot] * len(manifest.tasks)
    return {
        "baseline": _baseline(store, manifest),
        "incremental": Incremental(manifest.classes_seen) if manifest.classes_seen else None,
        "num_classes": _num_classes,
        "reference": summarise(AccuracyMatrix(manifest.tasks, manifest.zero_shot, unchanged)),
        "order_of_settings": list(SequenceSettings.model_fields),
        "seconds": {
            stage: sum(e.seconds for e in entries if e.stage == stage)
            for stage in STAGES
            if stage != "adapt" or manifest.adapters
        },
        "curves": curves,
        "figures": figures,
        "first_and_last": first_and_last,
        "history": lambda model: read_history(store, model),
        "samples": lambda pairs: sample_pairs(store, pairs, NUM_SAMPLES),
        "thumbnail": thumbnail,
    }


def _manifest(
    sequence: SequenceSettings,
    groups: Mapping[str, Sequence[Manifest]],
    scores: Sequence[ScoresManifest],
    baseline: str | None,
    refused: Sequence[Failure],
) -> SequenceManifest:
    tasks = tuple(task.name for task in sequence.tasks)
    if refused:
        tasks = tasks[: len(scores) - 1]
    learns = sequence.method != "zero-shot"
    if [row.after_task for row in scores] != [None, *(name if learns else None for name in tasks)]:
        raise ValueError(f"report: {len(scores)} rows of scores, not zero-shot and after {tasks}")
    percents = (tuple(score.percent for score in row.tasks) for row in scores)
    zero_shot, *rows = (row[: len(tasks)] for row in percents)
    inputs = {
        f"{kind}-{number:02d}": manifest.digest
        for kind, manifests in groups.items()
        for number, manifest in enumerate(manifests)
    } | ({"baseline": baseline} if baseline else {})
    if refused:  # the same rows may be let pass another time
        told = [failure.model_dump(mode="json") for failure in refused]
        inputs["refused"] = sha256_hex(canonical_json(told))
    # The same run on a folder and on S3, here and on pools, is the same sequence.
    settings = sequence.model_dump(mode="json", exclude={"store", "execution"})
    references = {
        kind: tuple(f"{manifest.stage}/{manifest.key}" for manifest in manifests)
        for kind, manifests in groups.items()
    }
    return plan_output(
        SequenceManifest,
        name=sequence.name,
        inputs=inputs,
        settings=settings,
        seed=sequence.seed,
        method=sequence.method,
        tasks=tasks,
        models=references["model"],
        pairs=references["pairs"],
        fishers=references["fisher"],
        scores=references["scores"],
        adapters=references["adapter"],
        zero_shot=zero_shot,
        matrix=tuple(rows),
        panel={
            score.data_set: tuple(row.panel[number].percent for row in scores)
            for number, score in enumerate(scores[0].panel)
        },
        metrics=summarise(AccuracyMatrix(tasks, zero_shot, rows)),
        classes_seen=seen.steps if (seen := incremental_of(scores)) else (),
        refused=tuple(refused),
        keeps_old_data=sequence.keeps_old_data,
    )


def _summary(manifest: SequenceManifest) -> dict[str, Any]:
    held_out = manifest.panel.get(HELD_OUT)
    shown = manifest.model_dump(mode="json", include={"tasks", "zero_shot", "matrix", "panel"})
    summary = manifest.metrics | shown | {"held_out": held_out[-1] if held_out else None}
    if not manifest.classes_seen:
        return summary
    seen = Incremental(manifest.classes_seen)
    told = {"steps": list(seen.steps), "average": seen.average, "last": seen.last}
    return summary | {"classes_seen": told}


def _num_classes(row: ScoresManifest, num_tasks: int) -> int:
    """How many classes the first tasks of a row have; equal names are one."""
    tasks = row.settings["tasks"][:num_tasks]
    return len({name for task in tasks for name in task["class_names"]})


def _canonical(manifest: Manifest) -> bytes:
    return canonical_json(manifest.model_dump(mode="json")) + b"\n"


def report_path(name: str, file: str) -> str:
    """Where a file of a sequence's report is, below the store's root."""
    return f"reports/{name}/{file}"


def _has_view(store: ObjectStore, manifest: SequenceManifest) -> bool:
    """Whether page and manifest of this very sequence are in place."""
    paths = [report_path(manifest.name, file) for file in ("sequence.json", "report.html")]
    if not all(store.exists(path) for path in paths):
        return False
    record, page = (store.read_bytes(path) for path in paths)
    return record == _canonical(manifest) and f'content="{manifest.digest}"'.encode() in page


def _baseline_digest(store: ObjectStore, sequence: SequenceSettings) -> str | None:
    """Find the digest of the baseline as it stands now; None when there is none (yet)."""
    name = sequence.baseline
    if name in (None, sequence.name) or not store.exists(report_path(str(name), "sequence.json")):
        return None
    return load_sequence_manifest(store, str(name)).digest


def _baseline(store: ObjectStore, manifest: SequenceManifest) -> SequenceManifest | None:
    """Find the baseline that was compared with, even if its name now means another run."""
    digest = manifest.inputs.get("baseline")
    if digest is None:
        return None
    paths = [path for path in store.list("outputs/report") if path.endswith("/manifest.json")]
    found = (find_output(store, SequenceManifest, "report", p.split("/")[2]) for p in paths)
    return next((each for each in found if each is not None and each.digest == digest), None)


def thumbnail(pair: ReplayPair) -> str:
    """Encode a replay image anew as a small `data:` URI: stored bytes are not trusted."""
    image = decode_rgb(pair.image_bytes, f"replay pair {pair.index} of {pair.task}")
    kind = "png" if max(image.size) <= THUMBNAIL_SIDE else "jpeg"
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format=kind, quality=88)
    return figures.data_uri(buffer.getvalue(), f"image/{kind}")
