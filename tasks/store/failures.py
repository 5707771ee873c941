"""What stores raise, in one place, so that every store says the same in the same words."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from gift_core.errors import StoreError


@contextmanager
def explained(action: str, where: str) -> Iterator[None]:
    """Turn a failure of the file system into a StoreError that says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        if action.startswith("write"):  # a writer makes the folders that it needs
            raise StoreError(
                f"cannot {action} {where}: there is no such place and it cannot be made; "
                "check the path"
            ) from error
        raise missing(where) from error
    except PermissionError as error:
        raise StoreError(
            f"cannot {action} {where}: access refused; check its owner and permissions"
        ) from error
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        cure = "make room, then run again" if full else "check the disk and the path"
        raise StoreError(f"cannot {action} {where}: {error.strerror or error}; {cure}") from error


def missing(where: str) -> StoreError:
    """Build the error for an object that should be there."""
    return StoreError(f"{where} does not exist; check the path or redo the stage that makes it")


def altered(where: str, expected: str, found: str) -> StoreError:
    """Build the error for an object whose bytes are not those that were stored.

    Without its manifest an output does not count: it is made anew, and its files put in place.
    """
    output = re.match(r".*/outputs/[^/]+/[^/]+/", where)
    return StoreError(
        f"{where} was altered: its SHA-256 is {found}, its manifest says {expected}; "
        f"delete {output[0] + 'manifest.json' if output else 'it'} and run again"
    )


def not_exclusive(url: str) -> StoreError:
    """Build the error for a store that lets two writers create the same object."""
    return StoreError(
        f"{url} ignores the condition to create an object only when it is absent, so two runs "
        "could overwrite each other; use a store that honours If-None-Match or hard links"
    )


def not_swapping(url: str) -> StoreError:
    """Build the error for a store that lets a writer replace what it has not seen."""
    return StoreError(
        f"{url} ignores the condition to replace an object only as it was read, so two runs could "
        "both move a head; use a store that honours If-Match or file locks"
    )
