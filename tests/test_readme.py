"""README's promises that are not a command: its sequence is valid, its commands exist."""

import re

import open_clip
import yaml

from tasks.sequence import SequenceSettings
from tests.worlds import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_sequence_shown_is_a_whole_one_with_the_papers_settings() -> None:
    (shown,) = blocks("yaml")
    sequence = SequenceSettings.model_validate(yaml.safe_load(shown))
    assert [task.name for task in sequence.tasks] == ["shoes", "sensors"]
    assert sequence.finetune_settings(sequence.tasks[1]).learning_rate == 5e-5
    assert sequence.finetune_settings(sequence.tasks[0]).learning_rate == 1e-5
    model = sequence.model
    assert open_clip.get_pretrained_cfg(model.architecture, model.pretrained)


def test_make_targets_shown_exist_and_ci_runs_the_test_command() -> None:
    targets = set(re.findall(r"make ([a-z0-9-]+)", README))
    assert {"demo", "test", "dashboard"} <= targets
    known = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert targets <= known
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_pages_linked_exist() -> None:
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / path).is_file(), path
