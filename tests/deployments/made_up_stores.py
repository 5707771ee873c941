"""What a run leaves in a store, made up, and made old."""

import os
import time

from tasks.report import report
from tasks.store.inventory import candidate_of, take_inventory
from tasks.store.objects import FolderStore, ObjectStore
from tasks.store.registry import promote
from tests.tasks.conftest import MadeUpRun, made_up_run


def reported(store: ObjectStore, name: str = "little", **changes: str) -> MadeUpRun:
    """A run of two tasks with its report, both models promoted."""
    run = made_up_run(store, name, ("digits", "photos"), **changes)
    report.fn(*run.arguments)
    inventory = take_inventory(store)
    for model in run.models[1:]:
        candidate = candidate_of(inventory, f"finetune/{model.key}")
        promote(store, name, candidate, reason="learnt", actor="test")
    return run


def aged(store: FolderStore, days: float = 30) -> None:
    """Let everything have been written long ago."""
    then = time.time() - 86400 * days
    for path in store.list():
        os.utime(store.root / path, (then, then))
