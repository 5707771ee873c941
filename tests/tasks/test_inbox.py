"""Inboxes, task.yaml and quarantine, on a real folder and a real bucket."""

import os
import secrets
from pathlib import Path

import pytest
import yaml

from deployments.seaweed import Endpoint
from gift_core.errors import DataError, GiftError, SettingsError
from tasks.inbox import BucketInbox, FolderInbox, Inbox
from tasks.store.address import open_store
from tasks.task_file import read_task

TASK = {"class_names": ["heron", "kite"], "learning_rate": 0.5, "templates": ["a {}."]}


class Dropped:
    """An inbox and a way to put files into it."""

    def __init__(self, inbox: Inbox, root: Path, store_url: str | None = None) -> None:
        self.inbox, self._root = inbox, root
        self._store = open_store(store_url) if store_url else None

    def put(self, path: str, data: bytes) -> None:
        if self._store is not None:
            self._store.replace_bytes(path, data)
            return
        (self._root / path).parent.mkdir(parents=True, exist_ok=True)
        (self._root / path).write_bytes(data)

    def paths(self) -> list[str]:
        return (self._store or open_store(str(self._root))).list()


@pytest.fixture(params=["folder", "s3"])
def dropped(request: pytest.FixtureRequest, tmp_path: Path) -> Dropped:
    if request.param == "folder":
        return Dropped(FolderInbox(tmp_path / "inbox"), tmp_path / "inbox")
    endpoint: Endpoint = request.getfixturevalue("endpoint")
    url = f"s3://{endpoint.bucket}/{secrets.token_hex(4)}"
    return Dropped(BucketInbox(open_store(url), tmp_path / "mirror"), tmp_path, url)


def test_only_complete_folders_are_seen_and_their_data_are_at_hand(dropped: Dropped) -> None:
    assert dropped.inbox.look() == []
    dropped.put("birds/train/heron/1.png", b"one")
    dropped.put("loose.txt", b"")
    assert dropped.inbox.look() == [], "no task.yaml yet"
    dropped.put("birds/task.yaml", yaml.safe_dump(TASK).encode())
    (waiting,) = dropped.inbox.look()
    folder = dropped.inbox.fetch(waiting)
    assert (folder / "train" / "heron" / "1.png").read_bytes() == b"one"
    task = read_task(folder, waiting.name)
    assert (task.name, task.data.kind, task.data.path) == ("birds", "image-folder", str(folder))
    assert (task.class_names, task.learning_rate) == (("heron", "kite"), 0.5)
    assert dropped.inbox.look() == [waiting], "found again as the same"
    dropped.put("birds/task.yaml", b"name: other")
    assert dropped.inbox.look()[0].place != waiting.place


def test_the_first_that_was_complete_comes_first(tmp_path: Path) -> None:
    for name, time in (("b", 20), ("a", 30), ("c", 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "task.yaml").touch()
        os.utime(tmp_path / name / "task.yaml", (time, time))
    assert [each.name for each in FolderInbox(tmp_path).look()] == ["c", "b", "a"]


def test_quarantine_keeps_everything_with_the_reason(dropped: Dropped) -> None:
    for _ in range(2):
        dropped.put("birds/list/train.csv", b"path,label")
        dropped.put("birds/task.yaml", b"{")
        (waiting,) = dropped.inbox.look()
        where = dropped.inbox.quarantine(waiting, "it is broken")
        assert dropped.inbox.look() == []
        assert where.startswith(f"{dropped.inbox.url}/.quarantine/birds")
    names = ("list/train.csv", "reason.txt", "task.yaml")
    expected = [f".quarantine/{each}/{name}" for each in ("birds", "birds-2") for name in names]
    assert dropped.paths() == sorted(expected)


@pytest.mark.parametrize(
    ("lies", "kind"),
    [
        ("train.parquet", "parquet"),
        ("train.csv", "csv"),
        ("train.tar", "web-dataset"),
        ("train-0001.tar", "web-dataset"),
        ("train/0001.tar", "web-dataset"),
        ("train/heron/1.png", "image-folder"),
        ("learn.csv", "csv"),
    ],
)
def test_the_kind_shows_in_what_lies_there(tmp_path: Path, lies: str, kind: str) -> None:
    path = tmp_path / "birds" / lies
    path.parent.mkdir(parents=True)
    path.touch()
    splits = {"splits": {"train": "learn"}} if lies.startswith("learn") else {}
    (tmp_path / "birds" / "task.yaml").write_text(yaml.safe_dump(splits))
    task = read_task(tmp_path / "birds", "birds")
    assert task.data.kind == kind
    assert dict(task.data.splits) == splits.get("splits", {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "keys and values, not a nothing"),
        ("naem: birds", r"task\.yaml: naem: no such setting; did you mean name\?"),
        ("name: ../birds", "name: .*pattern"),
        ("data: here", "data: give settings"),
        ("data: {path: ../other}", "does not lie in the task's own folder"),
        ("data: {path: /etc}", "does not lie in the task's own folder"),
        ("data: {path: 3}", "does not lie in the task's own folder"),
        ("data: {kind: pickle}", "data: "),
        ("templates: ['no place']", "templates.0: "),
        ("splits: {test: ../x}", "splits.test: "),
        ("splits: [a]", "splits: "),
        ("a: &a [*a, *a]", "not valid YAML|nested more|naem|a: no such"),
    ],
)
def test_a_broken_task_file_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "task.yaml").write_text(text)
    with pytest.raises(SettingsError, match=sentence) as caught:
        read_task(tmp_path, "birds")
    assert "\n" not in str(caught.value)


def test_a_link_out_of_the_folder_is_refused_one_inside_is_not(tmp_path: Path) -> None:
    (tmp_path / "secret.png").touch()
    folder = tmp_path / "inbox" / "birds"
    (folder / "train" / "heron").mkdir(parents=True)
    (folder / "task.yaml").write_text("name: birds")
    (folder / "train" / "heron" / "1.png").touch()
    (folder / "train" / "heron" / "2.png").symlink_to("1.png")
    assert read_task(folder, "birds").name == "birds"
    for target in (tmp_path / "secret.png", tmp_path, Path("/etc"), folder.parent / "birds-2"):
        link = folder / "train" / "link"
        link.symlink_to(target)
        with pytest.raises(DataError, match="a link out of the task's folder"):
            read_task(folder, "birds")
        link.unlink()
    whole = tmp_path / "inbox" / "whole"
    whole.symlink_to(folder)
    with pytest.raises(DataError, match="a link; put the folder itself there"):
        read_task(whole, "whole")
    inbox = FolderInbox(tmp_path / "inbox")
    waiting = next(each for each in inbox.look() if each.name == "whole")
    inbox.quarantine(waiting, "a link")
    assert (folder / "task.yaml").is_file(), "what it led to is untouched"
    assert [each.name for each in inbox.look()] == ["birds"]


def test_a_pipe_for_task_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    os.mkfifo(tmp_path / "birds" / "task.yaml")
    (waiting,) = FolderInbox(tmp_path).look()
    with pytest.raises(GiftError):
        read_task(FolderInbox(tmp_path).fetch(waiting), waiting.name)


def test_names_that_a_bucket_allows_and_a_folder_does_not(dropped: Dropped) -> None:
    dropped.put("Birds and more/task.yaml", b"name: birds")
    (waiting,) = dropped.inbox.look()
    if isinstance(dropped.inbox, BucketInbox):
        with pytest.raises(DataError, match="give the folder a name of lower-case letters"):
            dropped.inbox.fetch(waiting)
    dropped.inbox.quarantine(waiting, "its name")
    assert dropped.inbox.look() == []
