"""New tasks on top of a head: once, in order, over a rollback, and what ends a task."""

from pathlib import Path

import pytest
import yaml

from flows.continual_sequence import continual_sequence
from flows.new_task import new_task
from flows.storage import sequence_store
from gift_core.errors import DataError, Refused, SettingsError
from gift_core.gate import GatePolicy
from tasks.arriving import take_in
from tasks.growth import models_of, tasks_of
from tasks.report import load_sequence_manifest
from tasks.sequence import SequenceSettings, TaskSettings
from tasks.store.arrivals import arrivals_of
from tasks.store.heads import head_of, history_of
from tasks.store.objects import ObjectStore
from tasks.store.registry import rollback
from tasks.store.sweep import find_unreferenced
from tasks.store.verify import verify_store
from tests.worlds import tiny_sequence, write_squares

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("prefect_api")]


@pytest.fixture
def sequence(tiny_data: Path, tmp_path: Path) -> SequenceSettings:
    """No task in the file, the plainest method: all of them arrive."""
    tiny = tiny_sequence(tiny_data, str(tmp_path / "store"), method="finetune", panel=[])
    return tiny.model_copy(update={"tasks": ()})


@pytest.fixture
def file(sequence: SequenceSettings, tmp_path: Path) -> str:
    return written(sequence, tmp_path / "tiny.yaml")


def written(sequence: SequenceSettings, path: Path) -> str:
    path.write_text(yaml.safe_dump(sequence.model_dump(mode="json")))
    return str(path)


def arriving(folder: Path, name: str, colours: tuple[str, ...] = ("blue", "red")) -> TaskSettings:
    """A task whose images equal those of names of the same length, and of no others."""
    write_squares(folder / name, colours, 8 + len(name), 4)
    words = [f"{colour} square" for colour in colours]
    data = {"kind": "parquet", "path": str(folder / name)}
    return TaskSettings.model_validate({"name": name, "data": data, "class_names": words})


def head_tasks(store: ObjectStore) -> tuple[str, ...]:
    head = head_of(store, "tiny")
    assert head is not None
    return tasks_of(models_of(store, head))


def states(store: ObjectStore) -> list[tuple[str, str]]:
    return [(each.name, each.state) for each in arrivals_of(store, "tiny").tasks]


def test_tasks_are_learnt_once_in_order_and_go_on_after_a_rollback(
    sequence: SequenceSettings, file: str, tiny_data: Path, tmp_path: Path
) -> None:
    store = sequence_store(sequence.store)
    listed = tiny_sequence(tiny_data, sequence.store.url).tasks[:1]
    sequence = sequence.model_copy(update={"tasks": listed})
    written(sequence, Path(file))
    first, second = arriving(tmp_path, "birds"), arriving(tmp_path, "ship")
    take_in(store, sequence, first)
    take_in(store, sequence, second)

    # The run of the second comes first: it learns the file's own task, and what arrived before.
    assert new_task(file, second).tasks == ("birds", "ship")
    assert head_tasks(store) == ("warm", "birds", "ship")
    assert load_sequence_manifest(store, "tiny").tasks == ("warm", "birds", "ship")
    before = {path: store.read_bytes(path) for path in store.list()}
    assert new_task(file, first).summary == "tiny: nothing new to learn"
    assert new_task(file).tasks == ()
    # Other files of the same content are the same task, whatever it is called.
    copied = arriving(tmp_path / "elsewhere", "birds").model_copy(update={"name": "fowl"})
    assert new_task(file, copied).tasks == ()
    other = arriving(tmp_path / "other", "birds", ("red", "green"))
    with pytest.raises(SettingsError, match="has a data set called birds already"):
        new_task(file, other)
    assert {path: store.read_bytes(path) for path in store.list()} == before
    assert states(store) == [("birds", "learnt"), ("ship", "learnt")]

    rollback(store, "tiny", reason="it sinks", actor="test")
    assert new_task(file, arriving(tmp_path, "houses")).tasks == ("houses",)
    assert head_tasks(store) == ("warm", "birds", "houses")
    kinds = [entry.kind for entry in history_of(store, "tiny")]
    assert kinds == ["promoted", "rolled-back", *["promoted"] * 3]
    assert continual_sequence(sequence=sequence).num_computed == 0
    assert head_tasks(store) == ("warm", "birds", "houses")
    found = verify_store(store)
    assert (found.damages, found.num_entries) == ((), 5)
    unneeded = {group.what.split("/")[0] for group in find_unreferenced(store, 0).groups}
    assert unneeded <= {"output evaluate", "output report"}

    written(sequence.model_copy(update={"tasks": ()}), Path(file))
    take_in(store, sequence, arriving(tmp_path, "car"))
    with pytest.raises(SettingsError, match="its head has learnt warm, which is neither"):
        new_task(file)
    assert states(store)[-1] == ("car", "arrived"), "no fault of its own: it waits on"


def test_a_refused_task_is_kept_out_and_an_override_lets_it_in(
    sequence: SequenceSettings, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = sequence_store(sequence.store)
    first, second = arriving(tmp_path, "birds"), arriving(tmp_path, "ship")
    new_task(file, first)
    strict = sequence.model_copy(update={"gate": GatePolicy(min_gain=100)})
    written(strict, Path(file))
    for _ in range(2):
        with pytest.raises(Refused, match="the gate refused the model after ship"):
            new_task(file, second)
    assert head_tasks(store) == ("birds",), "the head's own past is not judged again"
    assert states(store) == [("birds", "learnt"), ("ship", "refused")]
    refused = arrivals_of(store, "tiny").tasks[1]
    assert refused.model is not None
    assert f"output {refused.model.output}" not in {
        group.what for group in find_unreferenced(store, 0).groups
    }
    assert new_task(file, second, override="the client asked").tasks == ("ship",)
    assert head_tasks(store) == ("birds", "ship")

    # Somebody goes back while the next one is learnt: what comes of it has no ship in it.
    written(sequence, Path(file))
    goes_back = [lambda: rollback(store, "tiny", reason="it sinks", actor="test")]

    def meanwhile(**settings: object) -> object:
        if goes_back:
            goes_back.pop()()
        return continual_sequence(**settings)  # type: ignore[arg-type]

    monkeypatch.setattr("flows.new_task.continual_sequence", meanwhile)
    assert new_task(file, arriving(tmp_path, "houses")).tasks == ("houses",)
    assert head_tasks(store) == ("birds", "houses")


def test_a_task_that_fails_does_not_hold_the_others_up(
    sequence: SequenceSettings, file: str, tmp_path: Path
) -> None:
    store = sequence_store(sequence.store)
    with pytest.raises(SettingsError, match="tiny names none; name at least one"):
        continual_sequence(file=file)
    first, second = arriving(tmp_path, "birds"), arriving(tmp_path, "ship")
    take_in(store, sequence, first)
    arriving(tmp_path, "birds", ("blue", "green"))  # other pictures under the same name
    assert new_task(file, second).tasks == ("ship",)
    assert head_tasks(store) == ("ship",)
    assert states(store) == [("birds", "failed"), ("ship", "learnt")]
    assert "its data changed since it arrived" in arrivals_of(store, "tiny").tasks[0].reason

    # What would learn the whole anew is refused, and what arrived waits on.
    faster = sequence.finetune.model_copy(update={"learning_rate": 1e-3})
    written(sequence.model_copy(update={"finetune": faster}), Path(file))
    again = arriving(tmp_path, "birds", ("blue", "green"))
    with pytest.raises(SettingsError, match="the settings of task ship changed since its head"):
        new_task(file, again)
    assert states(store)[2] == ("birds", "arrived"), "another task, and the name is free"
    written(sequence, Path(file))
    assert new_task(file).tasks == ("birds",)


def test_broken_data_are_one_sentence_and_leave_nothing(file: str, tmp_path: Path) -> None:
    task = arriving(tmp_path, "birds")
    (tmp_path / "birds" / "test.parquet").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"birds: .*test\.parquet: not a readable Parquet file"):
        new_task(file, task)
    assert not (tmp_path / "store" / "arrivals").exists()
