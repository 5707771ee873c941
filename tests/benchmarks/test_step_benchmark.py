"""Every rung of the ladder gives the plain step's weights; no time is judged here."""

import json
from functools import cache
from pathlib import Path

import open_clip
import pytest
import torch

from tests.benchmarks.ladder import Rung, Weights, largest_differences, rungs_for, steps_of
from tests.benchmarks.step import main
from tests.benchmarks.worlds import Setting, World

VISION = {"layers": 3, "width": 16, "head_width": 8, "image_size": 8, "patch_size": 4}
TEXT = {"context_length": 9, "vocab_size": 30, "width": 16, "heads": 2, "layers": 3}
PROMPTS = [
    [28, 4, 5, 6, 7, 29, 0, 0, 0],
    [28, 4, 5, 8, 29, 0, 0, 0, 0],
    [28, 4, 5, 6, 29, 0, 0, 0, 0],
    [28, 9, 1, 2, 3, 1, 2, 29, 0],
]
RUNGS = rungs_for(Setting())
torch.set_num_threads(1)
KEYS = {"setting", "machine", "equality", "seconds", "memory", "operations", "ladder"}


@cache
def tiny_world() -> World:
    torch.manual_seed(0)
    clip = open_clip.CLIP(embed_dim=12, vision_cfg=VISION, text_cfg=TEXT).double()
    clip.logit_scale.requires_grad_(False)
    with torch.no_grad():  # biases and scales that nothing can forget unnoticed
        for parameter in clip.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    tokens_NL = torch.tensor(PROMPTS)
    return World(clip, tokens_NL[:3], tokens_NL, Setting(task_batch=4, replay_batch=5))


def after_three_steps(rung: Rung) -> torch.nn.Module:
    weights = Weights(tiny_world())
    ready = steps_of(rung, weights)
    for number in range(3):
        ready(tiny_world().batch(number))()
    return weights.clip


@cache
def plainly_trained() -> torch.nn.Module:
    return after_three_steps(RUNGS[0])


@pytest.mark.parametrize("rung", RUNGS[1:], ids=lambda rung: rung.name)
def test_every_rung_gives_the_plain_steps_weights(rung: Rung) -> None:
    assert largest_differences(plainly_trained(), tiny_world().clip)[0] > 1e-5
    assert max(largest_differences(after_three_steps(rung), plainly_trained())) < 1e-10


def test_the_tiny_batches_hold_what_the_rearrangements_use() -> None:
    """Equal prompts within a batch, shared prefixes, padding: else equality would show little."""
    batches = [tiny_world().batch(number) for number in range(3)]
    assert any(len(batch.prompt_ids_B.unique()) < len(batch.prompt_ids_B) for batch in batches)
    assert all((batch.replay_tokens_BL[:, -1] == 0).all() for batch in batches)


def test_the_command_writes_what_it_promises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    sizes = ["--task-batch", "8", "--replay-batch", "8", "--repeats", "1", "--threads", "1"]
    assert main(["--miniature", *sizes, "--json", str(file)]) == 0
    results = json.loads(file.read_text())
    assert results.keys() == KEYS
    assert results["equality"]["equal"] is True
    assert results["operations"]["ratio"] > 1.0
    for side in ("plain", "ours"):
        assert len(results["seconds"][side]) == 1
        assert results["memory"][f"{side}_gib"] > results["memory"]["imports_gib"] > 0.0
    assert "plain / ours" in capsys.readouterr().out
