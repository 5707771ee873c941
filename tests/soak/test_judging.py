"""The sweep's judge: each thing that a kill may not do is noticed."""

from dataclasses import replace

import pytest

from tests.soak.forks import Told
from tests.soak.judging import Left, Work, problems, repeated

SHARDS = ("begin synthesize-shard/a", "made synthesize-shard/a", "begin synthesize-shard/b")
LEARNING = ("stage finetune", "begin finetune/c", *(f"step finetune/c {n}" for n in (1, 2, 3)))
ALL = ("stage synthesize", *SHARDS, "made synthesize-shard/b", *LEARNING, "made finetune/c")
LEFT = Left(
    manifests={"outputs/finetune/c/manifest.json": "1"},
    damages=[],
    unreferenced=[],
    models=["finetune/c"],
    paths=["outputs/finetune/c/manifest.json"],
)


def work(*lines: str, exit_code: int = 0) -> Work:
    return Work(Told(lines, 1.0, exit_code))


def judged(killed: Work, resumed: Work, left: Left = LEFT) -> list[str]:
    return list(problems(work(*ALL), LEFT, killed, resumed, left, checkpoint_every=2))


def test_a_shard_begun_again_is_the_only_unit_repeated() -> None:
    killed = work("stage synthesize", *SHARDS, exit_code=-1)
    resumed = work("found synthesize-shard/a", *ALL[3:])
    assert judged(killed, resumed) == []
    assert killed.last_stage == "synthesize"
    assert repeated(killed, resumed).units == {"synthesize": 1}


def test_steps_since_the_last_checkpoint_may_be_repeated() -> None:
    killed = work(*ALL[:-1], exit_code=-1)
    resumed = work("begin finetune/c", "step finetune/c 2", "step finetune/c 3", "made finetune/c")
    assert judged(killed, resumed) == []
    assert repeated(killed, resumed).units == {"finetune": 2}


@pytest.mark.parametrize(
    ("killed", "resumed", "said"),
    [
        (work(*ALL[:5]), work(*ALL[1:]), "finished and made again: synthesize-shard/a"),
        (work(*ALL[:2], *LEARNING), work(*ALL[1:]), "more than one output was begun again"),
        (work(*ALL[:-1]), work(*LEARNING), "3 training steps were repeated, more than 2"),
        (work(*ALL[:4]), work("made finetune/c"), "the outputs made are not"),
        (work(*ALL[:6]), work("begin finetune/c", "step finetune/c 3"), "the training steps done"),
        (work(), work(*ALL, exit_code=1), "ended with exit code 1"),
    ],
)
def test_work_that_is_too_much_or_missing_is_said(killed: Work, resumed: Work, said: str) -> None:
    assert any(said in problem for problem in judged(killed, resumed))


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (replace(LEFT, manifests={"outputs/finetune/c/manifest.json": "2"}), "is not the unbroken"),
        (replace(LEFT, manifests={}), "is not the unbroken run's"),
        (replace(LEFT, damages=["torn"]), "damaged: torn"),
        (replace(LEFT, unreferenced=["checkpoint"]), "unreferenced: checkpoint"),
        (replace(LEFT, models=["finetune/c"] * 2), "the head was"),
        (replace(LEFT, paths=[*LEFT.paths, "stray"]), "does not leave: stray"),
        (replace(LEFT, paths=[]), "only the unbroken run leaves"),
    ],
)
def test_a_store_that_differs_is_said(left: Left, said: str) -> None:
    assert any(said in problem for problem in judged(work(), work(*ALL), left))
