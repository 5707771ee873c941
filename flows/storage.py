"""Where a flow finds its store: the only place that reads a Prefect block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.filesystems import RemoteFileSystem

from gift_core.errors import SettingsError
from tasks.sequence import StoreSettings
from tasks.store.address import open_store
from tasks.store.leases import in_use
from tasks.store.objects import ObjectStore


def sequence_store(settings: StoreSettings) -> ObjectStore:
    """Open the store of a sequence; credentials come from AWS variables or from a Prefect block.

    Raises SettingsError when the block does not exist or the URL is neither a folder nor s3://.
    """
    if settings.block is None:
        return open_store(settings.url)
    return open_store(settings.url, _block_options(settings.block))


@contextmanager
def stage_store(settings: StoreSettings) -> Iterator[ObjectStore]:
    """The store of a stage. A run that a worker was given holds a lease of its own meanwhile.

    Its parent may be gone before it; a stage within its parent's process has the parent's lease.
    """
    store, context = sequence_store(settings), FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.deployment_id is None:
        yield store
        return
    with in_use(store):
        yield store


def _block_options(name: str) -> dict[str, Any]:
    try:
        block = RemoteFileSystem.load(name, _sync=True)
    except (ValueError, ObjectNotFound):
        raise SettingsError(
            f"store.block: Prefect has no remote-file-system block named {name!r}; "
            "create it in the dashboard under Blocks, or leave store.block empty"
        ) from None
    return dict(block.settings or {})
