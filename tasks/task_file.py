"""task.yaml: how a folder in an inbox says which task it is. Nothing in it is trusted.

name: birds                          # default: the folder's name
class_names: [heron, kite]           # default: the names in the data
templates: ["a photo of a {}."]
learning_rate: 5.0e-5                # default: the sequence's
splits: {test: held-out}             # where the data calls a split otherwise
data: {kind: csv, path: list}        # default: what lies in the folder itself
"""

import os
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from gift_core.errors import DataError, SettingsError
from tasks.sequence import TaskSettings
from tasks.setting_errors import settings_error
from tasks.yaml_file import read_mapping

TASK_FILE = "task.yaml"
_KINDS = (
    ("train.parquet", "parquet"),
    ("train.csv", "csv"),
    ("train.tar", "web-dataset"),
    ("train-*.tar", "web-dataset"),
    ("train/*.tar", "web-dataset"),
    ("train", "image-folder"),
)
"""What lies in a folder of each kind, the surest sign first."""


def read_task(folder: Path, name: str) -> TaskSettings:
    """The task of a folder, `name` its own name there; its data lie in the folder.

    Raises SettingsError for what is wrong with task.yaml, DataError for a link out of the folder.
    """
    file = folder / TASK_FILE
    _check_links(folder)
    content = read_mapping(file)
    splits = content.pop("splits", None)
    data = content.pop("data", {})
    if not isinstance(data, dict):
        raise SettingsError(f"{file}: data: give settings, each with its name")
    place = _data_folder(folder, data.pop("path", "."))
    content["data"] = {"kind": _kind_of(place, splits), **data, "path": str(place)}
    if splits is not None:
        content["data"]["splits"] = splits
    try:
        return TaskSettings.model_validate({"name": name, **content})
    except ValidationError as error:
        raise settings_error(error, str(file), TaskSettings) from None


def _data_folder(folder: Path, path: object) -> Path:
    parts = PurePosixPath(path).parts if isinstance(path, str) else ()
    if not isinstance(path, str) or path.startswith("/") or ".." in parts or "\0" in path:
        raise SettingsError(
            f"{folder / TASK_FILE}: data.path: {path!r} does not lie in the task's own folder; "
            "give a path below it, without '..'"
        )
    return Path(os.path.abspath(folder), *parts)


def _kind_of(place: Path, splits: object) -> str:
    """The kind of what lies in a folder: image-folder when nothing else shows."""
    train = splits.get("train", "train") if isinstance(splits, dict) else "train"
    if not isinstance(train, str) or not train.replace("-", "").replace("_", "").isalnum():
        train = "train"
    for sign, kind in _KINDS:
        if next(place.glob(sign.replace("train", train)), None) is not None:
            return kind
    return "image-folder"


def _check_links(folder: Path) -> None:
    inside = os.path.realpath(folder)
    if os.path.islink(folder):
        raise DataError(f"{folder}: a link; put the folder itself there")
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            if os.path.islink(path) and not os.path.realpath(path).startswith(inside + os.sep):
                raise DataError(f"{path}: a link out of the task's folder; put the file there")
