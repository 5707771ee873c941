"""`gift compare` as a person uses it: two methods, two seeds, one table; and again for nothing."""

import json
from pathlib import Path

import pytest
import yaml

from tests.deployments.conftest import Gift
from tests.worlds import tiny_sequence

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("prefect_api")]


def test_a_comparison_shares_what_is_common_and_is_not_repeated(
    gift: Gift, tiny_data: Path, tmp_path: Path
) -> None:
    one = tiny_sequence(tiny_data, str(tmp_path / "store"), method="finetune")
    content = one.model_dump(mode="json", exclude={"tasks": {1}})
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(content))
    variants = [{"name": "nothing", "method": "zero-shot"}, {"name": "plain"}]
    grid = {"name": "two", "base": str(tmp_path / "base.yaml"), "variants": variants}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(grid))
    command = ("compare", str(tmp_path / "two.yaml"), "--seeds", "0", "1")
    code, out, err = gift(*command, "--output", str(tmp_path / "out"))
    assert code == 0, err[-2000:]
    for word in ("nothing", "plain", "Average", "\u00b1", "comparison.html"):
        assert word in out
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [(row["name"], row["seeds"]) for row in rows] == [("nothing", [0, 1]), ("plain", [0, 1])]
    made = sorted(path.parts[-3] for path in (tmp_path / "store").glob("outputs/*/*/manifest.json"))
    assert {stage: made.count(stage) for stage in made} == {
        "pretrained": 1,
        "evaluate": 3,
        "score": 6,  # three models, a task and the panel
        "finetune": 2,
        "report": 4,
    }
    assert rows[0]["metrics"]["average"][0] == rows[0]["metrics"]["average"][1]
    page = (tmp_path / "out" / "comparison.html").read_bytes()
    code, _, _ = gift(*command, "--output", str(tmp_path / "out"))
    assert code == 0
    assert (tmp_path / "out" / "comparison.html").read_bytes() == page


def test_a_row_that_is_wrong_is_named_before_any_work(
    gift: Gift, tiny_data: Path, tmp_path: Path
) -> None:
    sequence = tiny_sequence(tmp_path / "nowhere", str(tmp_path / "store"), method="finetune")
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(sequence.model_dump(mode="json")))
    code, out, err = gift("compare", str(tmp_path / "a.yaml"))
    assert (code, out) == (2, "")
    assert "tiny: tasks.0 (warm): " in err
    code, out, err = gift("compare", str(tmp_path / "nothere.yaml"))
    assert (code, out, len(err.splitlines())) == (2, "", 1), "no flow run tells it first"
    assert "nothere.yaml" in err
    assert not list((tmp_path / "store").glob("outputs/*"))
