"""The benchmark's results for a terminal."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table

Results = dict[str, Any]


def tables(results: Results) -> Iterator[RenderableType]:
    """Say what was measured, then plain beside ours, then the ladder where it was climbed."""
    setting, machine = results["setting"], results["machine"]
    yield (
        f"{setting['model'].rpartition('/')[2]}, {setting['task_batch']} + "
        f"{setting['replay_batch']} images, {setting['classes']} class prompts; {machine['name']}, "
        f"{machine['threads']} threads, torch {machine['torch']}"
    )
    yield _sides(results)
    yield _notes(results)
    if results["ladder"]:
        yield _ladder(results["ladder"])


def _sides(results: Results) -> Table:
    times, memory, count = results["seconds"], results["memory"], results["operations"]
    table = Table()
    for title in ("", "plain", "ours", "plain / ours"):
        table.add_column(title, justify="left" if not title else "right")
    table.add_row(
        "seconds a step, median",
        f"{times['plain_median']:.3g}",
        f"{times['ours_median']:.3g}",
        f"{times['ratio']:.2f} ({times['ratio_min']:.2f} to {times['ratio_max']:.2f})",
    )
    table.add_row(
        "peak memory, GiB",
        f"{memory['plain_gib']:.2f}",
        f"{memory['ours_gib']:.2f}",
        f"{memory['ratio']:.2f}",
    )
    imports = memory["imports_gib"]
    table.add_row(
        f"  without {imports:.2f} of imports",
        f"{memory['plain_gib'] - imports:.2f}",
        f"{memory['ours_gib'] - imports:.2f}",
        f"{memory['net_ratio']:.2f}",
    )
    table.add_row(
        "matrix operations a step, 1e12",
        f"{count['plain'] / 1e12:.3g}",
        f"{count['ours'] / 1e12:.3g}",
        f"{count['ratio']:.2f}",
    )
    return table


def _notes(results: Results) -> str:
    count, equality, times = results["operations"], results["equality"], results["seconds"]
    verdict = {True: "equal", False: "NOT EQUAL", None: "not held to a tolerance"}
    return (
        f"Weights after {equality['steps']} steps differ by {equality['largest_difference']:.1e} "
        f"at most: {verdict[equality['equal']]}"
        + (f" (below {equality['tolerance']:.0e})." if equality["equal"] else ".")
        + f" Key biases, whose gradient is rounding alone: {equality['of_key_biases']:.1e}."
        + f"\nFloor: our operations at this machine's {count['rate'] / 1e9:.4g} billion a second "
        f"({count['rate_of']}) take {count['floor_seconds']:.3g} s; our step reaches "
        f"{100 * count['floor_reached']:.0f} % of it."
        f"\nOutside the step, once a task: the teacher's features, {times['teacher_once']:.2g} s "
        "when spread over its steps."
    )


def _ladder(rungs: list[Results]) -> Table:
    table = Table(title="Each rung adds one rearrangement", title_justify="left")
    table.add_column("adds")
    for title in ("seconds", "times faster", "1e12 operations", "peak GiB"):
        table.add_column(title, justify="right")
    for rung in rungs:
        table.add_row(
            rung["adds"],
            f"{rung['median']:.3g}",
            f"{rung['times_plain']:.2f}",
            f"{rung['operations'] / 1e12:.3g}",
            f"{rung['peak_gib']:.2f}",
        )
    return table
