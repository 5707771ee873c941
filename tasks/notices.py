"""What the dashboard shows of things that are no output: upkeep, and tasks in quarantine."""

from tasks.publishing import escaped
from tasks.store.sweep import Findings
from tasks.store.verify import Verification

MAX_ROWS = 200
"""Rows of a table; who has more of them needs a terminal."""


def verified_markdown(found: Verification) -> str:
    """How much was hashed, and a row for each object that is not as it was stored."""
    lines = [
        f"{found.num_outputs} outputs, {found.num_files} files, {found.num_bytes / 1e6:,.1f} MB, "
        f"{found.num_entries} entries of heads: "
        + (f"{len(found.damages)} damaged" if found.damages else "all as they were stored"),
        "",
    ]
    rows = [(damage.path, damage.problem) for damage in found.damages]
    return "\n".join(lines + _table(("object", "problem"), rows))


def swept_markdown(found: Findings, num_removed: int) -> str:
    """How much nothing reaches, how much of it was removed, and a row for each group."""
    total = f"{found.num_objects} objects, {found.num_bytes / 1e6:,.1f} MB that nothing needs"
    lines = [f"{total}; {num_removed} removed", ""]
    if found.runs:
        lines += [f"{len(found.runs)} runs under way; what they made or found is spared.", ""]
    rows = [
        (group.what, f"{len(group.paths)} objects, {group.num_bytes / 1e6:,.1f} MB")
        for group in found.groups
    ]
    rows += [
        (f"left by a killed writer, {left.name}", f"{left.num_bytes / 1e6:,.1f} MB")
        for left in found.leftovers
    ]
    return "\n".join(lines + _table(("what", "size"), rows))


def quarantine_markdown(name: str, where: str, reason: str) -> str:
    """Why a task was not taken in, and what to do."""
    return (
        f"## {escaped(name)} is in quarantine\n\n{escaped(reason)}\n\n"
        f"It lies in {escaped(where)}. Mend it there and move it back into the inbox.\n"
    )


def _table(heads: tuple[str, str], rows: list[tuple[str, str]]) -> list[str]:
    if not rows:
        return []
    lines = [f"| {heads[0]} | {heads[1]} |", "| --- | --- |"]
    lines += [f"| {escaped(first)} | {escaped(second)} |" for first, second in rows[:MAX_ROWS]]
    if len(rows) > MAX_ROWS:
        lines.append(f"| and {len(rows) - MAX_ROWS} more | |")
    return lines
