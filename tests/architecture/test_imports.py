"""What starts often starts fast: torch, open_clip and the like are imported where there is work.

A worker starts a process a run, the inbox is looked into every minute, a command is typed and
waited for. torch takes a second of that, open_clip with what it brings along three more.
"""

import subprocess
import sys

import pytest

from tests.worlds import CLIP, ROOT

LOADS_MODELS = ("open_clip", "torchvision", "timm", "transformers", "diffusers", "peft", "sklearn")
COMPUTES = (*LOADS_MODELS, "torch")
DRAWS = "matplotlib"
PLANS = f"""
import deployments.cli, deployments.registry_cli, deployments.pairs_cli, deployments.data_cli
import flows.inbox, flows.upkeep, tasks.check, tasks.growth
from tasks.models.starting_model import ModelSettings, check_model
assert check_model(ModelSettings(architecture="local-dir:{CLIP}"))
"""
SHOWS = "import tasks.report, tasks.pairs_card, deployments.dashboard.serving, deployments.tables"
SENDS = "import flows.new_task, flows.comparison, flows.stages, flows.pools"


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [(PLANS, (*COMPUTES, DRAWS)), (SHOWS, COMPUTES), (SENDS, LOADS_MODELS)],
    ids=["plans", "shows", "sends"],
)
def test_a_process_imports_no_more_than_it_needs(code: str, unwanted: tuple[str, ...]) -> None:
    code += f"\nimport sys\nprint(*[name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
