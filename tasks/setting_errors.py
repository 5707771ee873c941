"""What is wrong with settings, in one sentence: where it stands, what it is, what was meant."""

from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel, ValidationError

from gift_core.errors import SettingsError, one_line

_WORDS = {
    "model_type": "give settings, each with its name",
    "model_attributes_type": "give settings, each with its name",
    "tuple_type": "give a list",
    "string_type": "give text",
    "int_parsing": "give a whole number",
    "int_from_float": "give a whole number",
    "float_parsing": "give a number",
    "bool_parsing": "give true or false",
    "finite_number": "give a finite number",
}
"""Plain words for pydantic's kinds of error, where its own are a programmer's."""


def settings_error(error: ValidationError, where: str, kind: type[BaseModel]) -> SettingsError:
    """One sentence for the first problem of such settings, and how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    key = ".".join(one_line(part, 80) for part in first["loc"]) or "the whole"
    if first["type"] == "extra_forbidden":
        text = f"no such setting; {_meant(first['loc'], kind)}"
    elif first["type"] == "missing":
        text = "is missing and has no default"
    else:
        given = first["input"]
        text = _WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
        if not isinstance(given, dict | list | tuple):
            text += f" (got {one_line(repr(given), 80)})"
    others = len(problems) - 1
    more = f" ({others} more problem{'s' if others > 1 else ''})" if others else ""
    return SettingsError(f"{where}: {key}: {text}{more}")


def _meant(place: tuple[int | str, ...], kind: type[BaseModel]) -> str:
    """Advice for a setting that does not exist: the name nearest to it, or all there are."""
    *parents, name = place
    known = _names_at(kind, parents)
    near = get_close_matches(str(name), known, 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def _names_at(kind: object, place: list[int | str]) -> list[str]:
    """The names of the settings at a place of the models; [] where it leads nowhere."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if not place:
            return list(kind.model_fields)
        first, *rest = place
        if field := kind.model_fields.get(str(first)):
            return _names_at(field.annotation, rest)
        tag = kind.model_fields.get("kind")  # of a family's member: pydantic puts it in between
        return _names_at(kind, rest) if tag and tag.default == first else []
    rest = place[1:] if place and isinstance(place[0], int) else place  # an item of a list
    return next((names for part in get_args(kind) if (names := _names_at(part, rest))), [])
