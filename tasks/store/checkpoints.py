"""Tensors as safetensors files: equal tensors are equal bytes, and nothing is unpickled.

torch takes a second to import and is imported where there are tensors: who only looks for outputs
has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from gift_core.errors import StoreError
from tasks.store.failures import explained
from tasks.store.local_files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors in the order of their names, as they are on the CPU, in one step.

    At most one entry of metadata: the library writes several in another order in each process, and
    equal tensors would not be equal bytes. ValueError otherwise, StoreError when the disk is full.
    """
    import torch
    from safetensors.torch import save

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
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path}: not a readable safetensors file ({error})") from None
