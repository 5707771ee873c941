"""What a person reads in a terminal: nothing is cut where a terminal has its usual 80 columns."""

from io import StringIO

from rich.console import Console

from deployments.tables import comparison_table
from tasks.comparison import Compared

METRICS = {
    "transfer": (65.2, 64.8),
    "average": (73.4, 72.8),
    "last": (80.1, 79.3),
    "learned": (100.0, 99.0),
    "forgetting": (5.2, 4.8),
    "held-out after": (85.6, 85.0),
    "pretraining after": (93.0, 91.0),
}


def printed(rows: list[Compared]) -> list[str]:
    console = Console(width=80, file=StringIO())
    console.print(comparison_table(rows))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_a_comparison_is_read_whole_at_80_columns() -> None:
    names = ["gift", "distillation of images only"]
    rows = [
        Compared(name=name, method="gift", seeds=(0, 1), metrics=METRICS, keeps_old_data=old)
        for name, old in zip(names, (False, True), strict=True)
    ]
    lines = printed(rows)
    assert max(map(len, lines)) <= 80
    text = " ".join(lines)
    for metric in METRICS:
        assert all(word in text for word in metric.capitalize().split())
    numbers = ["65.0±0.3", "73.1±0.4", "79.7±0.6", "99.5±0.7", "5.0±0.3", "85.3±0.4", "92.0±1.4"]
    assert [line.split() for line in lines if line.startswith("gift")] == [["gift", *numbers]]
    folded = "".join(line[: len("distillatio")] for line in lines[3:-1])
    assert "".join(folded.split()) == "distillationofimagesonly*"
    assert lines[-1].strip() == "*: uses images of other tasks"


def test_one_seed_has_no_deviation_and_nothing_a_dash() -> None:
    metrics = {"last": (80.1,), "transfer": (65.2,)}
    rows = [
        Compared(name="gift", method="gift", seeds=(0,), metrics=metrics),
        Compared(name="one task", method="gift", seeds=(0,), metrics={"last": (90.0,)}),
    ]
    lines = [line.split() for line in printed(rows)]
    assert lines == [
        ["percent", "Last", "Transfer"],
        ["gift", "80.1", "65.2"],
        ["one", "task", "90.0", "-"],
    ]
