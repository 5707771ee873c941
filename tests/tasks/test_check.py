"""Every refusal before work: one sentence, exit code 2, and nothing left behind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gift_core.errors import GiftError, SettingsError
from tasks.check import Plan, check_sequence
from tasks.sequence import SequenceSettings
from tasks.store.address import open_store
from tests.worlds import GENERATOR, tiny_sequence, write_squares

Changes = dict[str, object]


def checked(sequence: SequenceSettings) -> Plan:
    return check_sequence(sequence, open_store(sequence.store.url))


def test_plan_settles_class_lists_counts_and_pools(tmp_path: Path, tiny_data: Path) -> None:
    plan = checked(tiny_sequence(tiny_data, str(tmp_path)))
    first, second = plan.tasks
    assert (first.index, second.index) == (1, 2)
    assert first.num_images == {"train": 10, "test": 6}
    assert first.class_names == ("red square", "green square")
    pretraining = (
        "a photo of a red circle.",
        "a photo of a blue star.",
        "a photo of a dot pattern.",
    )
    assert plan.prompt_pool(first) == pretraining
    known = ("a photo of a red square.", "a photo of a green square.")
    assert plan.prompt_pool(second) == pretraining + known
    assert plan.replays
    assert list(tmp_path.iterdir()) == []


def test_class_names_of_the_data_set_are_the_default(tmp_path: Path, tiny_data: Path) -> None:
    sequence = tiny_sequence(tiny_data, str(tmp_path))
    task = sequence.tasks[0].model_copy(update={"class_names": None})
    plan = checked(sequence.model_copy(update={"tasks": (task,)}))
    assert plan.tasks[0].class_names == ("red", "green")


def test_plain_finetuning_asks_for_no_generator(tmp_path: Path, tiny_data: Path) -> None:
    nowhere = {"generator": {"model": str(tmp_path / "none")}}
    plan = checked(
        tiny_sequence(tiny_data, str(tmp_path / "s"), method="finetune", synthesis=nowhere)
    )
    assert not plan.replays


def with_model(**model: object) -> Callable[[Path, Path], Changes]:
    return lambda data, tmp: {"model": model}


def with_task(**changes: object) -> Callable[[Path, Path], Changes]:
    def change(data: Path, tmp: Path) -> Changes:
        write_squares(tmp / "data", ("red", "green", "blue"), 6, 6)
        task = {"name": "warm", "data": {"kind": "parquet", "path": str(tmp / "data")}}
        return {"tasks": [task | changes], "panel": []}

    return change


def with_generator(folder: str) -> Callable[[Path, Path], Changes]:
    return lambda data, tmp: {"synthesis": {"generator": {"model": folder}}}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_model(architecture="ViT-B-160"), r"no model 'ViT-B-160'; did you mean ViT-B-16 or"),
        (with_model(architecture="ViT-B-16"), "ViT-B-16 needs a pretrained tag or a weights file"),
        (
            with_model(architecture="ViT-B-16", pretrained="opnai"),
            "'opnai' is neither a file nor a tag of ViT-B-16; tags: openai",
        ),
        (with_model(architecture="local-dir:/nowhere"), "there is no folder /nowhere; name one in"),
        (
            with_model(architecture=f"local-dir:{GENERATOR}"),
            "generator holds no open_clip_config.json, so it is not a model",
        ),
        (
            lambda data, tmp: {"finetune": {"trained": {"lora": {"target_modules": ["query"]}}}},
            r"target_modules: query names no linear layer of the towers that learn; .* q_proj",
        ),
        (with_generator("/nowhere/model"), "no folder /nowhere/model"),
        (with_generator(str(GENERATOR / "unet")), "not a diffusers pipeline folder"),
        (
            with_task(class_names=["red", "green"]),
            r"tasks\.0 \(warm\): 2 class names for the 3 classes of the train split",
        ),
        (with_task(class_names=["a", "b", "b"]), r"class_names holds 'b' more than once"),
        (
            with_task(data={"kind": "parquet", "path": "/nowhere"}),
            r"tasks\.0 \(warm\): no file /nowhere/train\.parquet",
        ),
        (lambda data, tmp: {"pretraining": {"class_names": []}}, "the list is empty"),
        (
            lambda data, tmp: {"synthesis": {"num_pairs": 4, "draw": "without-replacement"}},
            "4 prompts without replacement, but the pool holds 3",
        ),
    ],
)
def test_refusals(
    tmp_path: Path, tiny_data: Path, change: Callable[[Path, Path], Changes], sentence: str
) -> None:
    store = tmp_path / "store"
    sequence = tiny_sequence(tiny_data, str(store), **change(tiny_data, tmp_path))
    with pytest.raises(GiftError, match=sentence) as caught:
        checked(sequence)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert not store.exists() or not any(store.iterdir())


def test_labels_outside_the_class_list(tmp_path: Path) -> None:
    from tests.worlds import png, square, write_split

    for split in ("train", "test"):
        write_split(tmp_path / "data" / f"{split}.parquet", [png(square("red", 1))], [2], None)
    task = {
        "name": "warm",
        "data": {"kind": "parquet", "path": str(tmp_path / "data")},
        "class_names": ["red", "green"],
    }
    sequence = tiny_sequence(tmp_path, str(tmp_path / "s"), tasks=[task], panel=[])
    with pytest.raises(GiftError, match="train split has label 2, but the 2 class names allow"):
        checked(sequence)


def test_unwritable_store_is_refused_first(tmp_path: Path, tiny_data: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(GiftError, match="file") as caught:
        checked(tiny_sequence(tiny_data, str(blocked / "store")))
    assert caught.value.exit_code == 2


def test_a_temporary_folder_too_deep_for_workers_is_refused_before_they_hang(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", f"/{'t' * 75}")
    sequence = tiny_sequence(tiny_data, str(tmp_path / "store"))
    checked(sequence)  # it has no workers
    execution = sequence.execution.model_copy(update={"workers": 1})
    with pytest.raises(SettingsError, match=r"76 characters.*at most 75; set TMPDIR"):
        checked(sequence.model_copy(update={"execution": execution}))
