"""Requests to object storage that hold only under a condition, and what its refusals look like."""

from email.utils import parsedate_to_datetime
from typing import Any

from botocore.compat import get_current_datetime
from botocore.exceptions import ClientError
from fsspec.asyn import sync
from s3fs import S3FileSystem

from tasks.store.s3_patience import NUM_CONFLICTS, pause, seconds_for


def put_if(files: S3FileSystem, key: str, data: bytes, condition: dict[str, str]) -> bool:
    """Put an object under a condition; False when it does not hold."""
    for attempt in range(NUM_CONFLICTS):
        try:
            files.pipe_file(key, data, timeout=seconds_for(len(data)), **condition)
        except OSError as error:
            # If-Match on an object that is gone: 404 by AWS, 412 by others.
            if _status(error) == 412 or code(error) == "NoSuchKey":
                return False
            # 409: another writer of the same key is at work; the next try learns who won.
            if _status(error) != 409 or attempt == NUM_CONFLICTS - 1:
                raise
            pause(attempt)
        else:
            return True
    raise AssertionError("unreachable: the last try returns or raises")


def read_with_etag(files: S3FileSystem, path: str) -> tuple[bytes, str] | None:
    """One request for content and ETag, so that they belong together."""
    bucket, _, key = path.partition("/")

    async def read() -> tuple[bytes, str]:
        answer = await files._call_s3("get_object", Bucket=bucket, Key=key)
        async with answer["Body"] as body:
            return await body.read(), str(answer["ETag"])

    try:
        found: tuple[bytes, str] = sync(files.loop, read)
    except FileNotFoundError as error:
        if code(error) == "NoSuchBucket":
            raise
        return None
    return found


def honoured(files: S3FileSystem, key: str) -> tuple[bool, bool]:
    """Whether the server keeps to If-None-Match, and whether to If-Match."""
    absent = {"IfNoneMatch": "*"}
    exclusive = put_if(files, key, b"a", absent) and not put_if(files, key, b"b", absent)
    found = read_with_etag(files, key)
    if found is None:
        return exclusive, False
    seen = {"IfMatch": found[1]}
    return exclusive, put_if(files, key, b"c", seen) and not put_if(files, key, b"d", seen)


def clock_skew(error: BaseException) -> str:
    """How far this machine's clock is from the server's, by the Date of its answer."""
    headers = _response(error).get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        theirs = parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return "too far from"
    minutes = (get_current_datetime(remove_tzinfo=False) - theirs).total_seconds() / 60
    return f"{abs(minutes):.0f} minutes {'ahead of' if minutes > 0 else 'behind'}"


def _response(error: BaseException) -> dict[str, Any]:
    cause = error if isinstance(error, ClientError) else error.__cause__
    return cause.response if isinstance(cause, ClientError) else {}


def _status(error: BaseException) -> int:
    return int(_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code(error: BaseException) -> str:
    """The server's own name for what went wrong, "" where there is none."""
    return str(_response(error).get("Error", {}).get("Code", ""))
