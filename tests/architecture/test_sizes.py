"""Rules of the house that a reviewer should not have to look for."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worlds import ROOT

MAX_FILE, MAX_FUNCTION = 300, 60
SOURCES = sorted(
    path
    for folder in ("gift_core", "tasks", "flows", "deployments")
    for path in (ROOT / folder).rglob("*.py")
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_fit_a_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE
    for function in functions(path):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= MAX_FUNCTION, f"{function.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_pickled(path: Path) -> None:
    text = path.read_text()
    for word in ("import pickle", "torch.save", "joblib", "cloudpickle"):
        assert word not in text


def test_tensors_change_in_place_only_where_the_name_says_so() -> None:
    for path in (ROOT / "gift_core").glob("*.py"):
        for function in functions(path):
            names = {
                node.func.attr
                for node in ast.walk(function)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            }
            in_place = {name for name in names if name.endswith("_") and not name.startswith("_")}
            foreach = {name for name in names if name.startswith("_foreach") and name[-1] == "_"}
            if in_place - {"requires_grad_", "unscale_"}:
                assert function.name.endswith("_"), f"{path.name}: {function.name}: {in_place}"
            if foreach:
                assert function.name.endswith("_") or function.name == "gift_step"


def test_only_the_flows_read_blocks_and_only_the_edge_reads_the_environment() -> None:
    for path in SOURCES:
        text, place = path.read_text(), path.relative_to(ROOT).as_posix()
        if place.startswith("deployments/"):
            continue
        assert "os.environ" not in text, place
        if place != "flows/storage.py":
            assert "prefect.filesystems" not in text, place
