"""Checkpoints: equal tensors are equal bytes, and nothing is ever unpickled."""

import json
import pickle
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gift_core.errors import StoreError
from tasks.store.checkpoints import load_tensors, save_tensors


def test_bytes_are_the_formats_own(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x", {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor(3)}, {"k": "v"})
    data = (tmp_path / "x").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert header["__metadata__"] == {"k": "v"}
    assert (header["b"]["dtype"], header["b"]["shape"]) == ("F32", [2])
    begin, end = (8 + size + offset for offset in header["b"]["data_offsets"])
    assert data[begin:end] == b"\x00\x00\x80?\x00\x00\x00@"


def test_order_and_layout_of_the_callers_tensors_do_not_matter(tmp_path: Path) -> None:
    matrix = torch.arange(6.0).view(2, 3)
    save_tensors(tmp_path / "x", {"a": matrix, "b": matrix[0]}, {})
    save_tensors(tmp_path / "y", {"b": matrix[0].clone(), "a": matrix.T.contiguous().T}, {})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert torch.equal(load_tensors(tmp_path / "x")["a"], matrix)


def test_metadata_without_a_fixed_order_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no fixed order"):
        save_tensors(tmp_path / "x", {"a": torch.zeros(1)}, {"k": "v", "l": "w"})


def test_others_may_read_the_file(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x", {"a": torch.zeros(1)}, {})
    assert (tmp_path / "x").stat().st_mode & stat.S_IRGRP


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_other_bytes_are_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(StoreError, match="not a readable safetensors file"):
        load_tensors(path)


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(StoreError, match="not a readable safetensors file"):
        load_tensors(tmp_path / "x")
