"""Where a flow finds its store: the only place that reads a Prefect block."""

from typing import Any

from prefect.exceptions import ObjectNotFound
from prefect.filesystems import RemoteFileSystem

from gift_core.errors import SettingsError
from tasks.sequence import StoreSettings
from tasks.store.address import open_store
from tasks.store.objects import ObjectStore


def sequence_store(settings: StoreSettings) -> ObjectStore:
    """Open the store of a sequence; credentials come from AWS variables or from a Prefect block.

    Raises SettingsError when the block does not exist or the URL is neither a folder nor s3://.
    """
    if settings.block is None:
        return open_store(settings.url)
    return open_store(settings.url, _block_options(settings.block))


def _block_options(name: str) -> dict[str, Any]:
    try:
        block = RemoteFileSystem.load(name, _sync=True)
    except (ValueError, ObjectNotFound):
        raise SettingsError(
            f"store.block: Prefect has no remote-file-system block named {name!r}; "
            "create it in the dashboard under Blocks, or leave store.block empty"
        ) from None
    return dict(block.settings or {})
