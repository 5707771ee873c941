"""The member of the family of stores that keeps its objects in a bucket, through s3fs.

s3fs is used without its listing cache (other processes' objects must be seen at once), without
`Expect: 100-continue` (a server that stays silent would then be waited for without limit) and
with one layer of retries (its own would multiply botocore's).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from aiobotocore.session import AioSession
from aiohttp import ClientError as HttpError
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.handlers import add_expect_header
from s3fs import S3FileSystem

from gift_core.errors import SettingsError, StoreError
from tasks.store.failures import missing, not_exclusive, not_swapping
from tasks.store.leftovers import Leftover, abort_upload, unfinished_uploads
from tasks.store.local_files import TEMPORARY_PREFIX
from tasks.store.objects import CHUNK_BYTES, ObjectStore, checked_path, probe_name
from tasks.store.s3_conditions import clock_skew, code, honoured, put_if, read_with_etag
from tasks.store.s3_patience import IMPATIENT, PATIENT, read_again, seconds_for

OPTIONS = {
    "anon", "client_kwargs", "config_kwargs", "endpoint_url", "key", "profile", "requester_pays",
    "s3_additional_kwargs", "secret", "token", "use_ssl",
}  # fmt: skip

PART_BYTES = 16 * 2**20
_MAX_PARTS = 10_000
_NUM_CONCURRENT_PARTS = 2  # two parts in flight keep an upload's memory at 100 MB


class S3Store(ObjectStore):
    """Objects below "s3://bucket/prefix".

    `options` are s3fs's (OPTIONS lists them); without them botocore finds credentials, region and
    endpoint where it always does. Raises SettingsError for a bad address or option.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        bucket, _, prefix = url.removeprefix("s3://").strip("/").partition("/")
        self.options = dict(options or {})
        if not bucket:
            raise SettingsError(f"store {url}: no bucket; write s3://bucket or s3://bucket/prefix")
        if unknown := sorted(set(self.options) - OPTIONS):
            raise SettingsError(f"store {url}: unknown options {unknown}; known: {sorted(OPTIONS)}")
        try:
            self._root = f"{bucket}/{checked_path(prefix)}" if prefix else checked_path(bucket)
        except StoreError as error:
            raise SettingsError(f"store {url}: {error}") from error
        self.bucket, self.prefix = bucket, prefix
        self.url = f"s3://{self._root}"
        self._connected: tuple[int, S3FileSystem] | None = None

    def read_bytes(self, path: str) -> bytes:
        """See ObjectStore."""
        return b"".join(self.read_chunks(path))

    def read_chunks(self, path: str) -> Iterator[bytes]:
        """See ObjectStore."""
        key = self._key(path)
        num_bytes = 0
        with (
            self._explained("read", path),
            # One request a chunk, each held to the ETag seen first: never a mix of two versions.
            self._files().open(key, block_size=CHUNK_BYTES, cache_type="none") as file,
        ):
            while chunk := read_again(partial(file.read, CHUNK_BYTES)):
                num_bytes += len(chunk)
                yield chunk
            expected = file.size
        if num_bytes != expected:
            raise StoreError(
                f"{self.url}/{path} ended after {num_bytes} of {expected} bytes; read it again"
            )

    def read_range(self, path: str, start: int, num_bytes: int) -> bytes:
        """See ObjectStore."""
        key = self._key(path)
        with self._explained("read", path):
            part = partial(self._files().cat_file, key, start=start, end=start + num_bytes)
            found: bytes = read_again(part)
            return found

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """See ObjectStore."""
        key = self._key(path)
        with self._explained("write", path):
            return put_if(self._files(), key, data, {"IfNoneMatch": "*"})

    def replace_bytes(self, path: str, data: bytes) -> None:
        """See ObjectStore."""
        key = self._key(path)
        with self._explained("write", path):
            self._files().pipe_file(key, data, timeout=seconds_for(len(data)))

    def read_versioned(self, path: str) -> tuple[bytes, str] | None:
        """See ObjectStore; the version is the ETag."""
        key = self._key(path)
        with self._explained("read", path):
            return read_again(partial(read_with_etag, self._files(), key))

    def compare_and_swap(self, path: str, data: bytes, version: str | None) -> bool:
        """See ObjectStore."""
        key = self._key(path)
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        with self._explained("write", path):
            return put_if(self._files(), key, data, condition)

    def modified(self, path: str) -> float | None:
        """See ObjectStore."""
        head = self._head(path)
        return head["LastModified"].timestamp() if head else None

    def upload(self, path: str, source: Path) -> None:
        """See ObjectStore."""
        key, num_bytes = self._key(path), source.stat().st_size
        with self._explained("write", path):
            self._files().put_file(
                str(source),
                key,
                chunksize=max(PART_BYTES, -(-num_bytes // _MAX_PARTS)),
                max_concurrency=_NUM_CONCURRENT_PARTS,
                timeout=seconds_for(num_bytes),
            )

    def size(self, path: str) -> int | None:
        """See ObjectStore."""
        head = self._head(path)
        return int(head["ContentLength"]) if head else None

    def list(self, prefix: str = "") -> list[str]:
        """See ObjectStore."""
        folder = self._key(prefix) if prefix else self._root
        with self._explained("list", prefix):
            names = self._files().find(folder)
        return sorted(
            name.removeprefix(f"{self._root}/")
            for name in names
            if name.startswith(f"{folder}/")
            and not name.endswith("/")
            and not name.rpartition("/")[2].startswith(TEMPORARY_PREFIX)
        )

    def delete(self, path: str) -> None:
        """See ObjectStore."""
        bucket, _, key = self._key(path).partition("/")
        with self._explained("delete", path):
            self._files().call_s3("delete_object", Bucket=bucket, Key=key)

    def check(self) -> None:
        """See ObjectStore; a missing bucket is refused, not created."""
        name = probe_name()
        key = f"{self.prefix}/{name}" if self.prefix else name
        with self._explained("write a probe to", ""):
            files = self._connect(IMPATIENT)
            # Listing comes first: some servers make the bucket of an object that they are given.
            files.call_s3("list_objects_v2", Bucket=self.bucket, MaxKeys=1, Prefix=key)
            try:
                exclusive, swaps = honoured(files, f"{self.bucket}/{key}")
            finally:
                files.call_s3("delete_object", Bucket=self.bucket, Key=key)
        if not exclusive:
            raise not_exclusive(self.url)
        if not swaps:
            raise not_swapping(self.url)

    def __reduce__(self) -> tuple[type["S3Store"], tuple[str, dict[str, Any]]]:
        return S3Store, (self.url, self.options)

    def leftovers(self) -> Sequence[Leftover]:
        """See ObjectStore; asked once a sweep."""
        with self._explained("list the unfinished uploads of", ""):
            return list(unfinished_uploads(self._files(), self.bucket, self._folder))

    def discard(self, leftover: Leftover) -> None:
        """See ObjectStore."""
        with self._explained("abort the upload of", leftover.name):
            abort_upload(self._files(), self.bucket, self._folder, leftover.name)

    def impatient(self) -> "S3Store":
        """See ObjectStore."""
        limits = {**IMPATIENT, **self.options.get("config_kwargs", {})}
        return S3Store(self.url, {**self.options, "config_kwargs": limits})

    @property
    def _folder(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    def _key(self, path: str) -> str:
        return f"{self._root}/{checked_path(path)}"

    def _head(self, path: str) -> dict[str, Any] | None:
        bucket, _, key = self._key(path).partition("/")
        with self._explained("look at", path):
            try:
                # Not fs.info, which lists the bucket after a miss in search of a folder.
                head: dict[str, Any] = self._files().call_s3("head_object", Bucket=bucket, Key=key)
            except FileNotFoundError:
                return None
            return head

    def _files(self) -> S3FileSystem:
        """The connection of this process: one made before a fork does not work after it."""
        if self._connected is None or self._connected[0] != os.getpid():
            self._connected = (os.getpid(), self._connect(PATIENT))
        return self._connected[1]

    def _connect(self, limits: dict[str, Any]) -> S3FileSystem:
        options = dict(self.options)
        session = AioSession(profile=options.pop("profile", None))
        # Before any client is made, so that a client which s3fs renews is cured as well.
        session.unregister("before-call.s3", add_expect_header)
        options["config_kwargs"] = {**limits, **options.get("config_kwargs", {})}
        files = S3FileSystem(
            session=session, use_listings_cache=False, skip_instance_cache=True, **options
        )
        files.retries = 1
        return files

    @contextmanager
    def _explained(self, action: str, path: str) -> Iterator[None]:
        """Turn what s3fs and botocore raise into a StoreError that says what to do."""
        where = f"{self.url}/{path}".rstrip("/")
        try:
            yield
        except FileNotFoundError as error:
            if code(error) == "NoSuchBucket":
                raise StoreError(
                    f"cannot {action} {where}: there is no bucket {self.bucket}; create it or "
                    "correct the store's address"
                ) from error
            raise missing(where) from error
        except (PermissionError, NoCredentialsError) as error:
            if code(error) == "RequestTimeTooSkewed":
                raise StoreError(
                    f"cannot {action} {where}: this machine's clock is {clock_skew(error)} that of "
                    "the storage, which takes no request so far off; set the clock, then run again"
                ) from error
            raise StoreError(
                f"cannot {action} {where}: access refused ({_one_line(error)}); set AWS_PROFILE or "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key that may list, read and write"
            ) from error
        except (OSError, BotoCoreError, ClientError, HttpError, ValueError) as error:
            raise StoreError(
                f"cannot {action} {where}: {_one_line(error)}; check that the endpoint is up and "
                "its address and region are right, then run again"
            ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
