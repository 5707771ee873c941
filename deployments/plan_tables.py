"""What lies on this machine, and what a run would do, as tables for a terminal."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from deployments.dashboard.words import size as in_bytes
from tasks.data_report import Finding
from tasks.forecast import Forecast, StageForecast, TaskForecast


def data_table(findings: Sequence[Finding]) -> Table:
    """One row a split: what is used, what lies there and must lie there, its digest."""
    # Without lines and with short digests, so that it fits a terminal of 80 columns.
    title = "used: after classes, shots and held_out are chosen; of: as published"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("data set", overflow="fold")
    table.add_column("split", overflow="fold")
    for name in ("used", "images", "of", "classes", "of"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("digest", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for each in findings:
        for split in each.splits:
            table.add_row(
                escape(each.name),
                split.name,
                f"{split.num_used:,}",
                f"{split.num_images:,}",
                _or_dash(split.expected_images),
                f"{split.num_classes:,}",
                _or_dash(split.expected_classes),
                split.digest[:8],
                "[bold]wrong[/bold]" if split.complaint else "ok",
            )
        for name in () if each.splits else each.asked:
            expected = each.settings.data.expected(name)
            images, classes = (
                (expected.num_images, expected.num_classes) if expected else (None,) * 2
            )
            counts = ["-", "-", _or_dash(images), "-", _or_dash(classes)]
            table.add_row(escape(each.name), name, *counts, "-", "[bold]missing[/bold]")
    return table


def tasks_table(plan: Forecast) -> Table:
    """One row a task and a data set of the panel: what it is learnt with, how much there is."""
    sequence = plan.sequence
    model = sequence.model.architecture + (
        f" ({tag})" if (tag := sequence.model.pretrained) else ""
    )
    table = Table(
        title=escape(f"{sequence.name}: {sequence.method}, {model}"), title_justify="left"
    )
    table.add_column("learnt")
    for name in ("rate", "steps", "pairs", "classes", "train images", "test images"):
        table.add_column(name, justify="right")
    for task in (*plan.tasks, *plan.panel):
        table.add_row(*_task_cells(task))
    return table


def _task_cells(task: TaskForecast) -> list[str]:
    learnt = task.learning_rate is not None
    rate = f"{task.learning_rate:g}" if learnt else "panel"
    counts = (task.num_steps, task.num_pairs) if learnt else (None, None)
    return [
        escape(task.name),
        rate,
        *(_or_dash(each) for each in (*counts, task.num_classes, task.num_train, task.num_test)),
    ]


def stages_table(plan: Forecast) -> Table:
    """One row a kind of stage with its GPU time, and their sum."""
    table = Table(title="stages", title_justify="left")
    table.add_column("stage")
    table.add_column("runs", justify="right")
    table.add_column("work")
    table.add_column("GPU time, estimated", justify="right")
    for stage in plan.stages:
        table.add_row(stage.name, f"{stage.runs}", stage.work, _gpu_time(stage))
    runs = sum(stage.runs for stage in plan.stages)
    seconds = sum(stage.gpu_seconds or 0.0 for stage in plan.stages)
    known = plan.size is not None
    table.add_row("all", f"{runs}", "", _hours(seconds) if known else "not known", style="bold")
    return table


def _gpu_time(stage: StageForecast) -> str:
    wants_one = stage.name in {"synthesize", "finetune", "adapt", "estimate-fisher", "evaluate"}
    if stage.gpu_seconds is None:
        return "not known" if wants_one else "-"
    return _hours(stage.gpu_seconds)


def storage_table(plan: Forecast) -> Table:
    """What will be stored, and the sum."""
    place = plan.sequence.store.url
    table = Table(title=escape(f"storage in {place}, estimated"), title_justify="left")
    table.add_column("what")
    table.add_column("size", justify="right")
    for what, num_bytes in plan.storage.items():
        table.add_row(what, in_bytes(round(num_bytes)))
    table.add_row("all", in_bytes(round(sum(plan.storage.values()))), style="bold")
    return table


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _or_dash(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
