"""Digests name content: not its place, not hidden files, but every name and byte."""

import hashlib
from pathlib import Path

from tasks.digests import digest_of_files, sha256_of_file


def folder(root: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return digest_of_files(root)


def test_file_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert sha256_of_file(tmp_path / "a") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_folder_digest_sees_names_and_bytes_only(tmp_path: Path) -> None:
    same = folder(tmp_path / "one", {"a": b"1", "b/c": b"2"})
    assert folder(tmp_path / "two", {"b/c": b"2", "a": b"1", ".cache/x": b"3"}) == same
    assert folder(tmp_path / "three", {"a": b"1", "b/d": b"2"}) != same
    assert folder(tmp_path / "four", {"a": b"2", "b/c": b"1"}) != same
