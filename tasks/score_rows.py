"""One row of the accuracy matrix as a table: a line a data set, with every measure that it has."""

from tasks.manifests import ScoresManifest
from tasks.publishing import Row

MEASURES = {
    "top-5, %": "top_percent",
    "mean per class, %": "mean_per_class",
    "calibration error, %": "calibration_error",
    "among all classes seen, %": "seen_percent",
}
"""Measures beside top-1 accuracy, and the member of a score that tells each; None: not known."""


def scores_rows(manifest: ScoresManifest) -> list[Row]:
    """One row a data set, the tasks first; measures that none of them has are left out."""
    scores = (*manifest.tasks, *manifest.panel)
    known = {
        title: name
        for title, name in MEASURES.items()
        if any(getattr(score, name) is not None for score in scores)
    }
    return [
        {
            "data set": score.data_set,
            "role": role,
            "split": score.split,
            "accuracy, %": round(score.percent, 2),
            "correct": score.num_correct,
            "images": score.num_images,
        }
        | {title: _shown(getattr(score, name)) for title, name in known.items()}
        for role, scores in (("task", manifest.tasks), ("panel", manifest.panel))
        for score in scores
    ]


def _shown(value: float | None) -> float | str:
    return "-" if value is None else round(value, 2)
