"""What a run on another worker is given: small things as they are, large ones through the store.

    parameters/<digest>.json    a parameter that Prefect's server would not keep

Prefect refuses a run whose parameters take more than 512 KiB, and ten thousand prompts do. Such an
object is needed while runs are under way; `gift gc` removes it afterwards.
"""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from gift_core.errors import StoreError
from tasks.manifests import FileRef, canonical_json, sha256_hex
from tasks.store.objects import ObjectStore
from tasks.store.outputs import read_verified

T = TypeVar("T")

MAX_INLINE_BYTES = 80_000
"""Of one parameter, as JSON: a run has fewer than six of this size."""


def handed_over(store: ObjectStore, value: object) -> Any:  # noqa: ANN401 - any JSON value
    """A parameter as JSON, or the reference to where it was laid; StoreError if it cannot be."""
    plain = to_jsonable_python(value)
    content = canonical_json(plain)
    if len(content) <= MAX_INLINE_BYTES:
        return plain
    digest = sha256_hex(content)
    ref = FileRef(path=f"parameters/{digest}.json", sha256=digest, num_bytes=len(content))
    store.replace_bytes(ref.path, content)  # anew each time: `gift gc` spares what is young
    return ref.model_dump(mode="json")


def taken(store: ObjectStore, kind: type[T], given: T | FileRef) -> T:
    """The parameter that was handed over, verified; StoreError when it is gone or altered."""
    if not isinstance(given, FileRef):
        return given
    try:
        return TypeAdapter(kind).validate_json(read_verified(store, given))
    except ValidationError as error:
        raise StoreError(
            f"{store.url}/{given.path} is no {kind.__name__} of this release "
            f"({error.errors()[0]['msg']}); run the same release everywhere"
        ) from None
