"""Tensors as safetensors files: equal tensors are equal bytes, and nothing is unpickled."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from gift_core.errors import StoreError
from tasks.store.failures import explained
from tasks.store.local_files import write_atomically


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors in the order of their names, as they are on the CPU, in one step.

    At most one entry of metadata: the library writes several in another order in each process, and
    equal tensors would not be equal bytes. ValueError otherwise, StoreError when the disk is full.
    """
    if len(metadata) > 1:
        raise ValueError(f"metadata {sorted(metadata)}: more than one entry has no fixed order")
    # A copy of each: the format refuses tensors that share memory, and tied weights do.
    ordered = {
        name: tensors[name].detach().cpu().clone(memory_format=torch.contiguous_format)
        for name in sorted(tensors)
    }
    with explained("write", str(path)):
        write_atomically(path, [save(ordered, dict(metadata))])


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors; StoreError naming the file when it is missing or torn."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path}: not a readable safetensors file ({error})") from None
