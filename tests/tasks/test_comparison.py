"""Comparisons: which sequences a grid means, what is refused, and what the table says."""

from pathlib import Path

import pytest
import yaml

from gift_core.errors import SettingsError
from tasks.comparison import Compared, merge, read_contestants
from tasks.comparison_page import comparison_html, comparison_markdown, write_comparison
from tasks.sequence import StoreSettings
from tasks.yaml_file import read_mapping
from tests.worlds import ROOT, tiny_sequence

ROWS = (
    Compared(name="plain", method="finetune", seeds=(0, 1), metrics={"average": (50.0, 54.0)}),
    Compared(name="<b>gift</b>", method="gift", seeds=(0, 1), metrics={"average": (70.0, 71.0)}),
    Compared(
        name="joint",
        method="joint",
        seeds=(0, 1),
        metrics={"average": (90.0, 92.0), "held-out after": (10.0, 10.0)},
        keeps_old_data=True,
    ),
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    content = tiny_sequence(tmp_path, str(tmp_path / "store")).model_dump(mode="json")
    path.write_text(yaml.safe_dump(content))
    return path


def grid(base: Path, *variants: dict[str, object], **more: object) -> Path:
    path = base.parent / "grid.yaml"
    content = {"name": "little", "base": str(base), "variants": list(variants)}
    path.write_text(yaml.safe_dump(content | more))
    return path


def test_a_grid_is_its_base_with_some_settings_changed(base: Path) -> None:
    finetune = {"num_steps": 2, "objective": {"consolidation": {"weight": 3.0}}}
    file = grid(base, {"name": "gift"}, {"name": "held", "finetune": finetune}, seeds=[0, 4])
    name, (gift, held) = read_contestants([file], ())
    assert (name, gift.name, held.name) == ("little", "gift", "held")
    first, second = held.sequences
    assert (first.name, first.seed) == ("tiny-held-seed-0", 0)
    assert (second.name, second.seed) == ("tiny-held-seed-4", 4)
    assert (first.finetune.num_steps, first.finetune.batch_size) == (2, 4)
    assert first.finetune.objective.consolidation.weight == 3.0
    (alone,) = read_contestants([file], (9,), StoreSettings(url="elsewhere"))[1][0].sequences
    assert (alone.seed, alone.store.url) == (9, "elsewhere")


def test_sequence_files_are_rows_as_they_are(base: Path) -> None:
    name, (row,) = read_contestants([base], ())
    assert (name, row.name, [each.name for each in row.sequences]) == ("base", "base", ["tiny"])


def test_keys_of_keys_are_laid_over_one_by_one_but_another_kind_is_whole() -> None:
    before = {"a": {"b": 1, "c": [1]}, "generator": {"model": "x", "num_steps": 9}}
    changes = {"a": {"c": [2]}, "generator": {"kind": "recorded", "path": "y"}}
    assert merge(before, changes) == {"a": {"b": 1, "c": [2]}, "generator": changes["generator"]}
    assert merge(before, {"generator": {"num_steps": 3}})["generator"]["model"] == "x"


@pytest.mark.parametrize(
    ("variants", "sentence"),
    [
        ([{"name": "a", "metod": "l2"}], r"variant a: metod: no such setting; did you mean method"),
        ([{"method": "l2"}], r"variants\.0\.name: is missing; name the variant"),
        ([{"name": "a"}, {"name": "a"}], r"two rows are called tiny-a"),
        ([], r"variants: "),
    ],
)
def test_what_is_wrong_with_a_grid_is_one_sentence(
    base: Path, variants: list[dict[str, object]], sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence) as caught:
        read_contestants([grid(base, *variants)], ())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "deployments" / "comparisons").glob("*.yaml")))
def test_shipped_comparisons_are_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    name, rows = read_contestants([path], ())
    written = read_mapping(path)
    assert name == path.stem == written["name"]
    assert [row.name for row in rows] == [variant["name"] for variant in written["variants"]]
    for row in rows:
        assert [sequence.seed for sequence in row.sequences] == written["seeds"]


def test_mean_and_deviation_over_seeds() -> None:
    plain, _, joint = ROWS
    assert plain.mean("average") == 52.0
    assert plain.deviation("average") == pytest.approx(8**0.5)
    assert plain.shown("average") == "52.0 +- 2.8"
    assert plain.shown("held-out after") == "-"
    single = Compared(name="x", method="gift", seeds=(0,), metrics={"average": (1.0,)})
    assert (single.deviation("average"), single.shown("average")) == (None, "1.0")
    assert joint.shown("held-out after") == "10.0 +- 0.0"


def test_the_table_marks_who_keeps_old_data_and_the_best_of_the_others(tmp_path: Path) -> None:
    markdown = comparison_markdown(ROWS)
    assert "| plain | 52.0 +- 2.8 | - |" in markdown
    assert "| joint * | 91.0 +- 1.4 | 10.0 +- 0.0 |" in markdown
    assert "* uses images of other tasks" in markdown
    page = comparison_html("n", ROWS)
    assert "&lt;b&gt;gift&lt;/b&gt;" in page
    assert "<b>gift" not in page.partition("<tbody>")[2]
    assert page.count('class="best"') == 1
    assert 'class="best">70.5' in page
    assert page == comparison_html("n", ROWS)
    written = write_comparison(tmp_path / "out", "n", ROWS)
    assert written.read_text() == page
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        write_comparison(tmp_path / "file", "n", ROWS)
