"""Two processes compute the step of one: real gloo processes on the same global batch."""

import os
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from gift_core.collectives import Ranks, any_rank, gather_rows
from gift_core.engine import make_engine
from gift_core.errors import SettingsError
from gift_core.features import PairFeatures, encode_images, encode_texts
from gift_core.finetune_settings import FinetuneSettings
from gift_core.objective import Objective
from gift_core.step import ReplayBatch, TaskBatch
from gift_core.training import TrainingState, train
from tests.gift_core.tiny import NUM_WORDS, TinyEncoder, scene

CPU = torch.device("cpu")
NUM_STEPS = 3


def test_one_process_gathers_nothing() -> None:
    rows = torch.ones(2, 3)
    assert gather_rows(rows, Ranks()) is rows
    assert Ranks().share_of(rows) is rows
    assert Ranks().rows(5) == slice(0, 5)
    assert any_rank(True, Ranks(), CPU)


def test_shares_cover_all_rows_evenly() -> None:
    """Five rows for two ranks: (0, 1, 2) and (3, 4, 4); the filling is cut off again."""
    rows = torch.arange(5)[:, None]
    shares = [Ranks(rank, 2).share_of(rows).flatten().tolist() for rank in range(2)]
    assert shares == [[0, 1, 2], [3, 4, 4]]
    assert [Ranks(rank, 4).share_of(rows[:1]).tolist() for rank in range(4)] == [[[0]]] * 4
    assert [Ranks(rank, 3).rows(6) for rank in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    with pytest.raises(SettingsError, match=r"batch_size: 5 rows .* by 2 processes; choose a mult"):
        Ranks(0, 2).rows(5)


def batches(
    teacher: TinyEncoder, ranks: Ranks, dtype: torch.dtype
) -> list[tuple[TaskBatch, ReplayBatch]]:
    """Eight images of five classes and six pairs of three prompts; this rank's rows of both."""
    made = []
    for step in range(NUM_STEPS):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(14, 3, 2, 2, generator=generator, dtype=dtype)
        prompts = torch.randint(0, NUM_WORDS, (3, 4), generator=generator)
        ids = torch.tensor([2, 0, 2, 1, 0, 2])
        with torch.no_grad():
            seen = PairFeatures(
                encode_images(teacher, images[8:]), encode_texts(teacher, prompts[ids])
            )
        task = TaskBatch(
            images[:8][ranks.rows(8)],
            torch.randint(0, 5, (8,), generator=generator),
            torch.arange(20).reshape(5, 4) % NUM_WORDS,
        )
        made.append((task, ReplayBatch(images[8:][ranks.rows(6)], prompts, ids, seen)))
    return made


def learn(
    ranks: Ranks, released: str, method: str
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    world = scene(torch.float64)
    student = world.student()
    objective = Objective(released=released).for_method(method)  # type: ignore[arg-type]
    settings = FinetuneSettings(
        num_steps=NUM_STEPS, warmup_steps=1, learning_rate=1e-2, objective=objective
    )
    state = TrainingState.start(student, settings, make_engine(student, "fp32", ranks, CPU))
    reports = train(state, batches(world.teacher, ranks, world.dtype))
    numbers = [vars(report) for report in reports]
    return {name: p.detach().clone() for name, p in student.named_parameters()}, numbers


CASES = [("corrected", "gift"), ("as-published", "gift"), ("corrected", "l2")]


def one_rank(rank: int, folder: str) -> None:
    """What each process runs; rank r leaves its weights and reports in the folder."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    ranks = Ranks(rank, 2)
    assert any_rank(rank == 1, ranks, CPU)
    assert not any_rank(False, ranks, CPU)
    rows = torch.full((2, 1), float(rank), requires_grad=True)
    joined = gather_rows(rows, ranks)
    assert joined.flatten().tolist() == [0.0, 0.0, 1.0, 1.0]
    (joined.flatten() * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert rows.grad is not None
    assert rows.grad.flatten().tolist() == [[2.0, 4.0], [6.0, 8.0]][rank]  # times two ranks
    from safetensors.torch import save_file

    for number, case in enumerate(CASES):
        weights, reports = learn(ranks, *case)
        columns = {key: torch.tensor([r[key] or 0.0 for r in reports]) for key in reports[0]}
        save_file(weights | columns, f"{folder}/{number}-{rank}.safetensors")
    distributed.destroy_process_group()
    os._exit(0)  # as the ranks of a training end, see tasks/launch.py


def test_two_gloo_processes_equal_one(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    multiprocessing.spawn(one_rank, args=(str(tmp_path),), nprocs=2)
    for number, case in enumerate(CASES):
        weights, reports = learn(Ranks(), *case)
        by_rank = [load_file(tmp_path / f"{number}-{rank}.safetensors") for rank in range(2)]
        for name, alone in weights.items():
            assert torch.equal(by_rank[0][name], by_rank[1][name])
            torch.testing.assert_close(by_rank[0][name], alone, rtol=0, atol=1e-10)
        for step, report in enumerate(reports):
            for key, value in report.items():
                found = by_rank[1][key][step].item()
                assert found == pytest.approx(value or 0.0, rel=1e-5, abs=1e-9)
