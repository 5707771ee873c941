"""The base of every settings model; each model itself stands beside the code it sets."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen and strict about names, so that a misspelt key is refused, not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
