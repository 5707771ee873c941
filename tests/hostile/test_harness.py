"""The harness of the fuzz tests: each kind of failure that it looks for fails."""

from pathlib import Path

import pytest

from gift_core.errors import GiftError
from tests.hostile.harness import Inputs, read


def test_a_reader_that_fails_otherwise_is_seen(tmp_path: Path) -> None:
    num = Inputs.num
    with pytest.raises(KeyError):
        read(lambda: {}["key"])
    with pytest.raises(AssertionError):
        read(lambda: (tmp_path / "file").write_text("x"), tmp_path / "store")
    Inputs.num = num

    def refuse() -> None:
        raise GiftError("two\nlines \x1b[31m")

    assert read(refuse) == "two lines ?[31m"
