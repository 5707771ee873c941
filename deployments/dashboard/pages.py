"""The pages of sequences: what each template is given. Nothing here knows of HTTP."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.dashboard.reading import Known, NotFound, Shelf, in_parallel, know, read_manifest
from gift_core.errors import GiftError
from gift_core.gate import GatePolicy
from gift_core.metrics import AccuracyMatrix, summarise
from tasks.figures import accuracy_figure
from tasks.manifests import Manifest, ModelManifest, PairsManifest, SequenceManifest
from tasks.report import report_path
from tasks.sequence import SequenceSettings
from tasks.standing import Standing, standing_of_run

MAX_ENTRIES = 100
"""Entries of a history that a page shows; `gift log` prints them all."""
METRICS: dict[str, tuple[str, str, int]] = {
    "transfer": ("Transfer", "tasks not learnt yet: what is kept of zero-shot skill", 1),
    "average": ("Average", "all tasks after every task: the mean of the matrix", 1),
    "last": ("Last", "all tasks after the last one", 1),
    "learned": ("Learned", "each task right after it is learnt", 1),
    "forgetting": ("Forgetting", "best earlier accuracy less the last; lower is better", -1),
}
"""Label, meaning, and whether more is better."""
_ACCURACIES = ("transfer", "average", "last", "learned")


@dataclass(frozen=True)
class Tile:
    """A metric with what it is compared with: the pretrained model on the same tasks."""

    label: str
    meaning: str
    value: float | None
    zero_shot: float | None
    better: int


def home(shelf: Shelf) -> dict[str, Any]:
    """All sequences with their heads; StoreError when the store is away."""
    names = shelf.names()
    sequences = in_parallel(lambda name: _with_head(shelf, name), names)
    return {"sequences": sequences, "metrics": METRICS}


def _with_head(shelf: Shelf, name: str) -> Known:
    known = know(shelf.store, name)
    _ = known.head_model, known.standing  # read here, where several sequences are read at once
    return known


def sequence_page(shelf: Shelf, name: str) -> dict[str, Any]:
    """Everything about one sequence; NotFound, and StoreError when nothing of it can be read."""
    known = shelf.sequence(name)
    standing = known.standing
    return {
        "known": known,
        "standing": standing,
        "tiles": tiles(standing) if standing else [],
        "policy": policy_of(known.run),
        "entries": known.history[:MAX_ENTRIES],
        "pairs": _pairs(shelf, known),
        "models": _models(shelf, known),
        "runs": shelf.runs(name),
        "has_page": shelf.store.exists(report_path(known.name, "report.html")),
        "order_of_settings": list(SequenceSettings.model_fields),
    }


def run_page(shelf: Shelf, name: str, key: str) -> dict[str, Any]:
    """One run of a sequence, as its manifest tells it."""
    run = shelf.run(key)
    if run.name != name:
        raise NotFound(f"No run of {name!r} has the key {key[:16]}.")
    standing = standing_of_run(run)
    return {
        "run": run,
        "standing": standing,
        "tiles": tiles(standing),
        "policy": policy_of(run),
        "order_of_settings": list(SequenceSettings.model_fields),
    }


def accuracy_svg(shelf: Shelf, name: str) -> bytes:
    """Accuracy over time; NotFound before the first row."""
    standing = shelf.sequence(name).standing
    if standing is None or not standing.learnt:
        raise NotFound(f"{name} has learnt no task yet.")
    shown = len(standing.learnt)
    rows = [row[:shown] for row in standing.rows]
    return accuracy_figure(standing.learnt, rows, standing.panel)


def tiles(standing: Standing) -> list[Tile]:
    """The headline metrics, each beside what the pretrained model would have."""
    if not standing.learnt:
        return []
    zero_shot = standing.rows[0][: len(standing.learnt)]
    matrix = AccuracyMatrix(standing.learnt, zero_shot, [zero_shot] * len(standing.learnt))
    unchanged = summarise(matrix)
    return [
        Tile(
            label,
            meaning,
            standing.metrics.get(name),
            unchanged[name] if name in _ACCURACIES else None,
            better,
        )
        for name, (label, meaning, better) in METRICS.items()
    ]


def policy_of(run: SequenceManifest | None) -> GatePolicy | None:
    """The gate that a run was judged by; None where there was none."""
    try:
        policy = GatePolicy.model_validate((run.settings if run else {}).get("gate") or {})
    except ValueError:
        return None
    return None if policy.is_empty else policy


def _models(shelf: Shelf, known: Known) -> list[ModelManifest]:
    """The models of the sequence in the order of learning, theta_0 first."""
    references = list(known.references.values())
    found = [
        each
        for stage in ("pretrained/", "finetune/")
        for each in _manifests(shelf, references, stage)
        if isinstance(each, ModelManifest)
    ]
    order = {digest: place for place, digest in enumerate(_chain(known, found))}
    return sorted(found, key=lambda model: order.get(model.digest, len(order)))


def _chain(known: Known, models: Sequence[ModelManifest]) -> list[str]:
    """Digests of the models from theta_0 to the latest; those beside the line come after."""
    if known.run is not None:
        numbered = sorted(role for role in known.run.inputs if role.startswith("model-"))
        return [known.run.inputs[role] for role in numbered]
    by_digest = {model.digest: model for model in models}
    line: list[str] = []
    model = by_digest.get(known.head.model.digest) if known.head else None
    while model is not None and model.digest not in line:
        line.append(model.digest)
        model = by_digest.get(model.parent or "")
    return line[::-1]


def _pairs(shelf: Shelf, known: Known) -> list[PairsManifest]:
    """Replay pairs in the order of the tasks that they are made before."""
    tasks = list(known.standing.tasks) if known.standing else []
    found = _manifests(shelf, known.references.values(), "synthesize/")
    pairs = [each for each in found if isinstance(each, PairsManifest)]
    return sorted(pairs, key=lambda p: tasks.index(p.task) if p.task in tasks else len(tasks))


def _manifests(shelf: Shelf, references: Iterable[str], prefix: str) -> list[Manifest]:
    """The manifests among some outputs that can be read, in the order given."""

    def read(reference: str) -> Manifest | None:
        try:
            return read_manifest(shelf.store, reference)
        except (GiftError, NotFound):
            return None

    wanted = [each for each in dict.fromkeys(references) if each.startswith(prefix)]
    return [found for found in in_parallel(read, wanted) if found is not None]
