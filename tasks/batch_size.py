"""`batch_size: auto`: how many pictures a generator makes a call, found once and kept in the store.

The batch size decides bytes, so it is settled before a shard is planned, for good: the output that
says it is named by what decides a batch's memory (generator, precision, size of pictures), not by
the device. Whoever finds it first settles it for every later run, task and worker of the store;
another device keeps to it, and what was made before keeps its keys. The pairs name it among their
inputs, so that `gift gc` keeps it and `gift verify` follows it. On which device it was found, and
from which numbers, stands in its run record.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.manifests import BatchSizeManifest
from tasks.models.encoders import best_device
from tasks.models.generators import DiffusersSettings, Generator
from tasks.progress import run_logger
from tasks.store.objects import ObjectStore
from tasks.store.outputs import find_planned, plan_output, read_run_record, run_output
from tasks.synthesize import PairsPlan, deciding

if TYPE_CHECKING:
    import torch

AUTO = "auto"
NO_MATTER = {"batch_size", "num_steps", "solver"}
"""Settings of a generator that change no batch's memory."""


def with_known_batch_size(store: ObjectStore, plan: PairsPlan) -> PairsPlan | None:
    """The plan with its batch size settled; None while it is still to be found."""
    if plan.settings.generator.batch_size != AUTO:
        return plan
    found = find_planned(store, _planned(plan))
    return None if found is None else _settled(plan, found.manifest)


def with_batch_size(
    store: ObjectStore,
    plan: PairsPlan,
    generator: Callable[[], Generator],
    device: "torch.device | None" = None,
) -> PairsPlan:
    """The plan with its batch size settled: as set, as it was found before, or found now.

    On a GPU the generator is asked for batches. On a CPU it is the default: there memory is not
    what bounds a batch, and more pictures a call gain little. Raises StoreError, SettingsError when
    the generator cannot be loaded.
    """
    if plan.settings.generator.batch_size != AUTO:
        return plan
    import torch

    from tasks.models.batch_fit import CudaMemory, largest_batch

    device = device or best_device()
    on_gpu = device.type == "cuda"
    planned, measured = _planned(plan), {}

    def find(_folder: Path) -> BatchSizeManifest:
        size = DiffusersSettings.model_fields["batch_size"].default
        if on_gpu:
            size, numbers = largest_batch(generator().try_batch, CudaMemory(device))
            measured.update(numbers)
        return planned.model_copy(update={"batch_size": size})

    where = torch.cuda.get_device_name(device) if on_gpu else "the CPU"
    produced = run_output(store, planned, find, device=where, measured=measured)
    found = produced.manifest
    record = read_run_record(store, found)
    run_logger().info(
        "synthesis.generator.batch_size: auto is %d pictures a call, found %son %s, kept in %s",
        found.batch_size,
        "before " if produced.reused else "",
        record.device if record else "another device",
        found.directory,
    )
    return _settled(plan, found)


def _planned(plan: PairsPlan) -> BatchSizeManifest:
    settings = deciding(plan)["generator"]
    return plan_output(
        BatchSizeManifest,
        name=plan.generator_identity,
        inputs={"generator": plan.generator_identity},
        settings={"generator": {k: v for k, v in settings.items() if k not in NO_MATTER}},
        batch_size=1,
    )


def _settled(plan: PairsPlan, found: BatchSizeManifest) -> PairsPlan:
    generator = plan.settings.generator.model_copy(update={"batch_size": found.batch_size})
    settings = plan.settings.model_copy(update={"generator": generator})
    return plan.model_copy(update={"settings": settings, "batch_size_found": found.digest})
