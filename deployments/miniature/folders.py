"""Writing a folder of weights so that readers see the old one or the new one, never half of one."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder`; put it in its place when the block ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    old = fresh.with_name(fresh.name + "-old")
    try:
        yield fresh
        # safetensors writes files, and mkdtemp folders, that only their owner may read.
        for path in fresh.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        fresh.chmod(0o755)
        if folder.exists():
            os.replace(folder, old)
        os.replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
