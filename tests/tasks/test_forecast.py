"""The plan of a run before any of it: where nothing is there, and where everything is."""

from pathlib import Path

import pytest
from safetensors import safe_open

from tasks.forecast import RATES, forecast
from tasks.models.at_hand import size_of
from tasks.models.starting_model import ModelSettings
from tasks.sequence import load_sequence
from tests.worlds import CLIP, ROOT, tiny_sequence

SEQUENCES = ROOT / "deployments" / "sequences"


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without data, on a machine without models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tasks.models.at_hand._is_cached", lambda *_: False)
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    return tmp_path


def test_mtil_is_foreseen_where_nothing_is_there(nowhere: Path) -> None:
    plan = forecast(load_sequence(SEQUENCES / "mtil-order-1.yaml"))
    runs = {stage.name: stage.runs for stage in plan.stages}
    assert runs == {
        "pretrained": 1, "synthesize": 11, "finetune": 11, "estimate-fisher": 11, "evaluate": 12,
        "promote": 11, "report": 1,
    }  # fmt: skip
    work = {stage.name: stage.work for stage in plan.stages}
    assert work["synthesize"] == "11,000 pairs in 22 shards"
    assert work["finetune"] == "11,000 steps of 64 images and 64 pairs"
    assert work["evaluate"] == "12 models, each on 97,209 images of 11 data sets"
    assert sum(task.num_classes or 0 for task in plan.tasks) == 1201
    assert plan.tasks[0].learning_rate == 5e-5
    seconds = {stage.name: stage.gpu_seconds for stage in plan.stages}
    assert seconds["synthesize"] == pytest.approx(11_000 / 0.99)
    assert "0.99 a second" in RATES[0]
    assert plan.size is not None
    assert plan.storage["12 models"] == 12 * 4 * plan.size.num_parameters
    said = "\n".join(plan.missing)
    for name in (task.name for task in plan.tasks):
        assert f"({name}): no folder data/" in said
    assert "weights of ViT-B-16-quickgelu (openai) are not on this machine" in said
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5 is not on this machine" in said
    assert list(nowhere.iterdir()) == []


def test_few_shots_and_class_slices_are_reckoned_from_the_published_numbers(nowhere: Path) -> None:
    few = forecast(load_sequence(SEQUENCES / "mtil-few-shot-5.yaml"))
    assert sum(task.num_train or 0 for task in few.tasks) == 5 * 1201
    sliced = forecast(load_sequence(SEQUENCES / "cil-tinyimagenet-5.yaml"))
    assert [task.num_train for task in sliced.tasks] == [50_000, *[10_000] * 5]
    assert [task.num_test for task in sliced.tasks] == [5000, *[1000] * 5]


def test_a_run_that_could_start_lacks_a_gpu_at_most(tmp_path: Path, tiny_data: Path) -> None:
    sequence = tiny_sequence(tiny_data, str(tmp_path / "store"))
    plan = forecast(sequence)
    assert all(sentence.startswith("no GPU on this machine") for sentence in plan.missing)
    assert [(task.num_train, task.num_test) for task in plan.tasks] == [(10, 6), (10, 6)]
    assert [task.name for task in plan.panel] == ["panel"]
    (work,) = [stage.work for stage in plan.stages if stage.name == "synthesize"]
    assert work == "12 pairs in 4 shards"
    generator = sequence.synthesis.generator.model_copy(update={"batch_size": "auto"})
    synthesis = sequence.synthesis.model_copy(update={"generator": generator})
    found = forecast(sequence.model_copy(update={"synthesis": synthesis}))
    assert f"{work}; batch size auto: found on the GPU, 16 on a CPU" in {
        s.work for s in found.stages
    }
    plain = forecast(sequence.model_copy(update={"method": "finetune"}))
    assert "synthesize" not in {stage.name for stage in plain.stages}
    assert not (tmp_path / "store").exists()


def test_a_model_is_counted_without_its_weights() -> None:
    size = size_of(ModelSettings(architecture=f"local-dir:{CLIP}"))
    assert size is not None
    with safe_open(CLIP / "open_clip_model.safetensors", framework="pt") as file:
        stored = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    numbers = 0
    for shape in stored.values():
        product = 1
        for length in shape:
            product *= length
        numbers += product
    assert size.num_parameters == numbers
    published = size_of(ModelSettings(architecture="ViT-B-16", pretrained="openai"))
    assert published is not None
    assert published.num_parameters == 149_620_737
    assert published.image_operations == pytest.approx(35.1e9, rel=0.01)
    assert size_of(ModelSettings(architecture="hf-hub:org/none")) is None
    assert size_of(ModelSettings(architecture="no-such-model")) is None
