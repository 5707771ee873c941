"""YAML files read as plain data, within bounds: a file from elsewhere may be made to do harm."""

from pathlib import Path

import yaml

from gift_core.errors import SettingsError, one_line

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_DIGITS = 20
MAX_VALUES = 200_000
"""Keys and values with each alias counted in full: a few lines of aliases can mean billions."""


def read_mapping(path: Path) -> dict[str, object]:
    """The keys and values of a YAML file.

    SettingsError with one sentence for a file that is missing, no text, no mapping or out of the
    bounds above, and for a key that is given twice.
    """
    try:
        if path.exists() and not path.is_file():
            raise SettingsError(f"{path}: not a file; name a sequence file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such sequence file; see deployments/sequences") from None
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a path that cannot be
        raise SettingsError(f"{path}: cannot be read as text ({error})") from None
    if len(data) > MAX_BYTES:
        raise SettingsError(f"{path}: larger than {MAX_BYTES:,} bytes; it is no sequence file")
    try:
        content = yaml.load(text, _BoundedLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        raise SettingsError(f"{path}: not valid YAML ({_told(error)})") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not valid YAML ({error})") from None
    # A value that is not what its tag says ends in whatever Python raises for it.
    except Exception as error:
        raise SettingsError(f"{path}: a value that YAML cannot read ({error})") from None
    if not isinstance(content, dict):
        kind = {"NoneType": "nothing"}.get(type(content).__name__, type(content).__name__)
        raise SettingsError(f"{path}: a sequence file holds keys and values, not a {kind}")
    return {one_line(key, 80): value for key, value in content.items()}


def _told(error: yaml.MarkedYAMLError) -> str:
    """What is wrong and where, without the lines that PyYAML shows."""
    mark = error.problem_mark or error.context_mark
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{error.problem or error.context}{place}"


class _BoundedLoader(yaml.SafeLoader):
    """SafeLoader that counts, and that takes no key twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._num_values = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        anchor, is_alias = event.anchor, isinstance(event, yaml.AliasEvent)
        before = self._num_values
        # An alias within its own anchor has no size yet: it is endless.
        known = is_alias and anchor in self.anchors
        self._num_values += self._sizes.get(anchor, MAX_VALUES) if known else 1
        self._depth += 1
        if self._depth > MAX_DEPTH or self._num_values > MAX_VALUES:
            raise yaml.composer.ComposerError(
                problem=f"nested more than {MAX_DEPTH} deep, or more than {MAX_VALUES:,} values",
                problem_mark=event.start_mark,
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None and not is_alias:
            self._sizes[anchor] = self._num_values - before
        return node

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        given = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        seen: set[str] = set()
        for key in given:
            if key in seen:
                raise yaml.composer.ComposerError(
                    problem=f"{one_line(key, 80)} is given twice", problem_mark=node.start_mark
                )
            seen.add(key)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MAX_DIGITS:
            raise yaml.constructor.ConstructorError(
                problem=f"a number of more than {MAX_DIGITS} digits", problem_mark=node.start_mark
            )
        return int(super().construct_yaml_int(node))


_BoundedLoader.add_constructor("tag:yaml.org,2002:int", _BoundedLoader.construct_yaml_int)
