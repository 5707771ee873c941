"""What killed writers leave, which no reader ever sees: temporary files and unfinished uploads."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.store.local_files import TEMPORARY_PREFIX

if TYPE_CHECKING:
    from s3fs import S3FileSystem

_LOCK_PREFIX = f"{TEMPORARY_PREFIX}lock-"
_ID = "?uploadId="  # no path of a store holds a question mark


class Leftover(NamedTuple):
    """Its name, when it was begun or written last (seconds since 1970, the store's clock), size."""

    name: str
    written: float
    num_bytes: int


def temporary_files(root: Path) -> Iterator[Leftover]:
    """Temporary files below a folder; lock files stay, for removing one would let two hold it."""
    for folder, _, names in os.walk(root):
        for name in names:
            if name.startswith(TEMPORARY_PREFIX) and not name.startswith(_LOCK_PREFIX):
                path = Path(folder, name)
                try:
                    facts = path.stat()
                except FileNotFoundError:  # its writer has just finished
                    continue
                yield Leftover(path.relative_to(root).as_posix(), facts.st_mtime, facts.st_size)


def unfinished_uploads(files: "S3FileSystem", bucket: str, prefix: str) -> Iterator[Leftover]:
    """Multipart uploads below a prefix that were neither completed nor aborted."""
    markers: dict[str, str] = {}
    while True:
        page: dict[str, Any] = files.call_s3(
            "list_multipart_uploads", Bucket=bucket, Prefix=prefix, **markers
        )
        for upload in page.get("Uploads", ()):
            key, name = upload["Key"], f"{upload['Key']}{_ID}{upload['UploadId']}"
            try:
                parts: dict[str, Any] = files.call_s3(
                    "list_parts", Bucket=bucket, Key=key, UploadId=upload["UploadId"]
                )
            except FileNotFoundError:  # its writer has just finished
                continue
            num_bytes = sum(part["Size"] for part in parts.get("Parts", ()))
            yield Leftover(name.removeprefix(prefix), upload["Initiated"].timestamp(), num_bytes)
        if not page.get("IsTruncated"):
            return
        markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def abort_upload(files: "S3FileSystem", bucket: str, prefix: str, name: str) -> None:
    """Abort one of `unfinished_uploads`; nothing happens when it is gone."""
    key, _, upload = f"{prefix}{name}".rpartition(_ID)
    try:
        files.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload)
    except FileNotFoundError:
        return
