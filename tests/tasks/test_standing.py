"""How a sequence stands, from the rows that there are."""

import pytest

from tasks.report import report
from tasks.standing import rows_in_order, standing_of_run, standing_of_scores
from tests.tasks.conftest import MadeUpRun


def test_all_rows_stand_as_the_run_does(run: MadeUpRun) -> None:
    manifest = report.fn(*run.arguments).manifest
    assert standing_of_scores(reversed(run.scores)) == standing_of_run(manifest)


def test_metrics_are_over_what_is_learnt(run: MadeUpRun) -> None:
    """After digits 96.0, 50.5, 61.5; after photos 95.5, 95.0, 61.0: the mean of four is 84.25."""
    standing = standing_of_scores(run.scores[:3])
    assert standing is not None
    assert standing.learnt == ("digits", "photos")
    assert standing.tasks == ("digits", "photos", "sketches")
    assert standing.names == ["zero-shot", "after digits", "after photos"]
    assert standing.metrics["average"] == pytest.approx(84.25)
    assert standing.mean_of_rows[0] == pytest.approx((40 + 51 + 62) / 3)
    assert [len(column) for column in standing.panel.values()] == [3]


def test_before_the_first_task_there_is_a_row_and_no_metric(run: MadeUpRun) -> None:
    standing = standing_of_scores(run.scores[:1])
    assert standing is not None
    assert (standing.learnt, standing.metrics, len(standing.rows)) == ((), {}, 1)
    assert standing_of_scores([]) is None


def test_rows_behind_a_gap_and_of_other_data_sets_are_left_out(run: MadeUpRun) -> None:
    zero_shot, digits, photos, _ = run.scores
    other = digits.model_copy(update={"tasks": digits.tasks[:2]})
    assert rows_in_order([photos, zero_shot]) == [zero_shot]
    assert rows_in_order([other, digits, zero_shot]) == [zero_shot, digits]
    assert rows_in_order([digits, photos]) == []
