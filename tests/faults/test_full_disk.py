"""Runs full_disk.py in a mount namespace of its own: nobody else sees its small disks."""

import os
import subprocess
import sys

import pytest

from tests.worlds import ROOT


@pytest.mark.timeout(500)
def test_full_disks_in_a_namespace_of_their_own() -> None:
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-rm"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*namespace, *command, "tests/faults/full_disk.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "3 passed" in done.stdout
