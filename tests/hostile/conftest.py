"""What each file of broken inputs has: a folder of its own, and how much was read before it."""

from pathlib import Path

import pytest

from tests.hostile.harness import Inputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def begun() -> tuple[int, int]:
    """Inputs read and refused before this file: another one may have run in this process."""
    return Inputs.num, Inputs.num_refused
