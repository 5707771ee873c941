"""The base of every settings model; each model itself stands beside the code it sets."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Settings(BaseModel):
    """Frozen and strict about names, so that a misspelt key is refused, not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def added(default: T, **about: Any) -> T:  # noqa: ANN401 - pydantic's own arguments
    """Declare a field that came after outputs were made without it.

    While it holds its default it is written nowhere: not into what is hashed, so that those outputs
    keep their keys and digests, and not into a manifest. What reads it back fills the default in.
    Such a default must therefore mean what was done before the field was there.

    Example:
        >>> class Draw(Settings):
        ...     balanced: bool = added(False, description="Every prompt equally often")
        >>> Draw().model_dump(), Draw(balanced=True).model_dump()
        ({}, {'balanced': True})
    """
    field: T = Field(default=default, exclude_if=lambda value: bool(value == default), **about)
    return field
