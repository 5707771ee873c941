"""The history of a training, a column a value, kept beside the model that it led to."""

import json

from tasks.manifests import ModelManifest
from tasks.store.objects import ObjectStore
from tasks.store.outputs import read_verified

HISTORY = "history.json"

History = dict[str, list[int | float | None]]
"""Columns of equal length, a row a step; whole numbers stay whole, or equal runs would differ."""


def read_history(store: ObjectStore, manifest: ModelManifest) -> History:
    """The columns of a fine-tuned model's history, verified; StoreError when altered."""
    history: History = json.loads(read_verified(store, manifest.file(HISTORY)))
    return history
