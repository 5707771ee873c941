"""From an address to the store that it names: the one place that knows every kind of store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from gift_core.errors import PASSWORD, SettingsError
from tasks.store.objects import FolderStore, ObjectStore


def open_store(url: str, options: Mapping[str, Any] | None = None) -> ObjectStore:
    """Open "s3://bucket/prefix", "file:///folder" or a folder by its path; asks no network.

    `options` are those of S3Store. Raises SettingsError for another scheme, an unknown option, or
    an address with a user or password in it: addresses are kept and shown.
    """
    if PASSWORD.search(url) or PASSWORD.search(str((options or {}).get("endpoint_url"))):
        raise SettingsError(
            f"store {url}: an address may hold no user or password; give them as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or as a block's key and secret"
        )
    scheme, separator, _ = url.partition("://")
    if separator and scheme == "s3":
        from tasks.store.s3 import S3Store  # a folder alone need not wait for botocore

        return S3Store(url, options)
    if separator and scheme != "file":
        raise SettingsError(f"store {url}: no store of kind {scheme}; give s3:// or a folder")
    if options:
        raise SettingsError(f"store {url}: a folder takes no options, found {sorted(options)}")
    if not url:
        raise SettingsError("store: the address is empty; give s3://bucket/prefix or a folder")
    if not separator:
        return FolderStore(Path(url))
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or not parts.path:
        raise SettingsError(f"store {url}: write file:///folder with three slashes")
    return FolderStore(Path(unquote(parts.path)))
