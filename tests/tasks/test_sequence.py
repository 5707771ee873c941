"""Sequence files: what is accepted, and the one sentence for what is not."""

from pathlib import Path

import pytest
import yaml

from gift_core.errors import SettingsError
from tasks.sequence import SequenceSettings, load_sequence
from tests.worlds import ROOT, tiny_sequence


@pytest.fixture
def content(tmp_path: Path) -> dict[str, object]:
    return tiny_sequence(tmp_path, str(tmp_path / "store")).model_dump(mode="json")


def written(folder: Path, content: object) -> Path:
    path = folder / "sequence.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_written_sequence_reads_back_equal(tmp_path: Path, content: dict[str, object]) -> None:
    path = written(tmp_path, content)
    assert load_sequence(path) == SequenceSettings.model_validate(content)


def test_overrides_replace_top_level_keys(tmp_path: Path, content: dict[str, object]) -> None:
    sequence = load_sequence(written(tmp_path, content), method="finetune", seed=3)
    assert (sequence.method, sequence.seed) == ("finetune", 3)


@pytest.mark.parametrize("path", sorted((ROOT / "deployments" / "sequences").glob("*.yaml")))
def test_shipped_sequences_are_valid(path: Path) -> None:
    assert load_sequence(path).name == path.stem


@pytest.mark.parametrize(
    ("dataset", "steps", "sizes"),
    [
        *(("cifar100", steps, [100 // steps] * steps) for steps in (10, 20, 50)),
        *(("tinyimagenet", steps, [100] + [100 // steps] * steps) for steps in (5, 10, 20)),
    ],
)
def test_class_incremental_sequences_cut_one_order(
    dataset: str, steps: int, sizes: list[int]
) -> None:
    folder = ROOT / "deployments" / "sequences"
    cuts, others = (
        [task.data.class_numbers for task in load_sequence(folder / f"{name}.yaml").tasks]
        for name in (f"cil-{dataset}-{steps}", f"cil-{dataset}-10")
    )
    assert [len(cut) for cut in cuts] == sizes
    order = [number for cut in cuts for number in cut]
    assert order == [number for cut in others for number in cut]
    assert sorted(order) == list(range(sum(sizes)))


def test_mtil_orders_hold_the_same_tasks_with_the_published_rates() -> None:
    folder = ROOT / "deployments" / "sequences"
    one, two = (load_sequence(folder / f"mtil-order-{number}.yaml") for number in (1, 2))
    assert {task.name: task for task in one.tasks} == {task.name: task for task in two.tasks}
    assert [task.name for task in one.tasks] == sorted(task.name for task in one.tasks)
    fast = {task.name for task in one.tasks if one.finetune_settings(task).learning_rate == 5e-5}
    assert fast == {"aircraft", "mnist"}
    for shots in (5, 16):
        few = load_sequence(folder / f"mtil-few-shot-{shots}.yaml")
        assert [task.name for task in few.tasks] == [task.name for task in one.tasks]
        assert {task.data.shots for task in few.tasks} == {shots}


def test_defaults_are_the_papers(content: dict[str, object]) -> None:
    for key in ("synthesis", "finetune", "fisher", "seed", "pretraining"):
        del content[key]
    sequence = SequenceSettings.model_validate(content)
    finetune, objective = sequence.finetune, sequence.objective
    assert (objective.distillation.weight, objective.distillation.temperature) == (1.0, 2.0)
    assert (objective.alignment.weight, objective.alignment.label_smoothing) == (0.25, 0.2)
    assert (objective.consolidation.kind, objective.consolidation.weight) == ("adaptive", 1.0)
    assert (finetune.num_steps, finetune.batch_size, finetune.warmup_steps) == (1000, 64, 100)
    assert (finetune.learning_rate, finetune.weight_decay) == (1e-5, 0.0)
    assert (sequence.seed, sequence.synthesis.num_pairs) == (42, 1000)
    generator = sequence.synthesis.generator
    assert (generator.num_steps, generator.guidance_scale) == (50, 7.5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sed": 1}, r"sequence\.yaml: sed: no such setting; did you mean seed\?"),
        ({"method": "gifft"}, r"method: .*'gift', 'zero-shot', .*'zscl' or 'joint'"),
        ({"name": "../up"}, r"name: .*'\.\./up'"),
        ({"tasks": 3}, "tasks: give a list"),
        (
            {"finetune": {"objective": {"distillation": {"weight": -1}}}},
            r"finetune\.objective\.distillation\.weight: .*greater than or equal to 0 \(got -1\)",
        ),
        ({"finetune": {"learning_rate": 0}}, r"finetune\.learning_rate: .*greater than 0"),
        ({"model": None}, "model: "),
    ],
)
def test_wrong_settings_are_one_sentence(
    tmp_path: Path, content: dict[str, object], change: dict[str, object], sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence) as caught:
        load_sequence(written(tmp_path, content | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "a {name}"])
def test_templates_have_one_place(
    tmp_path: Path, content: dict[str, object], template: str
) -> None:
    content["tasks"][0]["templates"] = [template]  # type: ignore[index]
    with pytest.raises(SettingsError, match=r"tasks\.0\.templates\.0: "):
        load_sequence(written(tmp_path, content))


def test_names_are_unique_over_tasks_and_panel(tmp_path: Path, content: dict[str, object]) -> None:
    content["panel"][0]["name"] = "warm"  # type: ignore[index]
    with pytest.raises(SettingsError, match="name warm more than once"):
        load_sequence(written(tmp_path, content))


def test_files_that_are_no_sequence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such sequence file"):
        load_sequence(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="holds keys and values, not a list"):
        load_sequence(written(tmp_path, [1]))
    (tmp_path / "sequence.yaml").write_text("a: [")
    with pytest.raises(SettingsError, match="not valid YAML") as caught:
        load_sequence(tmp_path / "sequence.yaml")
    assert "\n" not in str(caught.value)
    (tmp_path / "sequence.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(SettingsError, match="not valid YAML"):
        load_sequence(tmp_path / "sequence.yaml")
    (tmp_path / "sequence.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot be read as text"):
        load_sequence(tmp_path / "sequence.yaml")


def test_methods_switch_terms_off() -> None:
    def method(name: str) -> SequenceSettings:
        return tiny_sequence(Path("data"), "store", method=name)

    assert method("gift").objective.uses_replay
    assert not method("finetune").objective.uses_replay
    held = method("l2").objective
    assert not held.uses_replay
    assert (held.consolidation.kind, held.consolidation.weight) == ("l2", 1.0)


def test_a_task_may_have_its_own_learning_rate() -> None:
    sequence = tiny_sequence(Path("data"), "store")
    task = sequence.tasks[0].model_copy(update={"learning_rate": 5e-5})
    assert sequence.finetune_settings(task).learning_rate == 5e-5
    assert sequence.finetune_settings(sequence.tasks[1]).learning_rate == 1e-4
