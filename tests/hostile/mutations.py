"""How valid inputs are broken: bytes flipped, cut and repeated; parts of JSON changed in kind."""

import copy
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

Json = Any

NASTY: tuple[Json, ...] = (
    None, True, -1, 0, 2**63, 10**30, 1e308, float("inf"), float("nan"), "", "x",
    "../../etc/passwd", "/etc/passwd", "a\0b", "line\nbreak", "\x1b[2J\x1b[31m", "[red]x[/red]",
    "<script>alert(1)</script>", "{0.__class__}", "%s%n", "{}{}", "\u202e", "x" * 5000,
    [], [[]], {}, {"a": {"b": []}},
)  # fmt: skip
"""Values that some program somewhere has taken for something else."""


@st.composite
def flipped(draw: st.DrawFn, wholes: Sequence[bytes], start: int = 0) -> bytes:
    """One of some valid files, with a few bytes changed, now and then cut or with bytes put in.

    Half of the changes fall on the last or first `start` bytes (a footer or a header), if given.
    """
    data = bytearray(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(1, 6))):
        near = min(len(data), abs(start)) if start and draw(st.booleans()) else len(data)
        place = draw(st.integers(0, near - 1))
        if start < 0:
            place = len(data) - 1 - place
        data[place] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
    match draw(st.integers(0, 9)):
        case 0:
            del data[draw(st.integers(0, len(data) - 1)) :]
        case 1:
            place = draw(st.integers(0, len(data)))
            data[place:place] = draw(st.binary(max_size=40))
    return bytes(data)


@st.composite
def changed(draw: st.DrawFn, whole: Json) -> Json:
    """A valid record with one to three of its parts dropped, doubled, or of another kind."""
    root = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        node = root
        while node:
            key = draw(
                st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node)))
            )
            if isinstance(node[key], dict | list) and node[key] and draw(st.integers(0, 2)):
                node = node[key]
                continue
            match draw(st.integers(0, 7)):
                case 0:
                    del node[key]
                case 1 if isinstance(node, list):
                    node.append(copy.deepcopy(node[key]))
                case 1:
                    node[draw(st.sampled_from(("extra", "naem", "../x", "\x1b[0m")))] = 1
                case _:
                    node[key] = copy.deepcopy(draw(st.sampled_from(NASTY)))
            break
    return root
