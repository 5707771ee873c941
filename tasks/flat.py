"""Settings as lines: a dotted path and words for each value."""

import json
from collections.abc import Mapping
from typing import Any


def flat_settings(settings: Any, path: str = "") -> dict[str, str]:  # noqa: ANN401 - any JSON value
    """Settings by their dotted paths; a list of named ones by their names, and its order."""
    if isinstance(settings, Mapping) and settings:
        items = [(str(key), value) for key, value in settings.items()]
    elif isinstance(settings, list) and settings and all(isinstance(i, Mapping) for i in settings):
        items = [(str(each.get("name", n)), each) for n, each in enumerate(settings)]
    else:
        return {path: plain(settings)}
    found: dict[str, str] = {}
    if isinstance(settings, list):
        found[f"{path} (order)"] = ", ".join(name for name, _ in items)
    for key, value in items:
        found |= flat_settings(value, f"{path}.{key}" if path else key)
    return found


def plain(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """A setting that is no table: yes, no, a number, words."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(plain(each) for each in value) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def cut(text: str, limit: int) -> str:
    """The beginning of a long text."""
    return text if len(text) <= limit else f"{text[:limit]} ..."
