"""Stage promote: the gate judges a new model against its parent, and the sequence's head moves.

Heads are views: no output depends on them, and a run that is repeated adds nothing to a history.
"""

from collections.abc import Mapping, Sequence

import prefect
from prefect.cache_policies import NO_CACHE

from gift_core.gate import TRANSFER, Failure, GatePolicy, Row, Verdict, judge
from gift_core.settings import Settings
from tasks.manifests import ModelManifest, ScoresManifest
from tasks.progress import run_logger
from tasks.store import registry
from tasks.store.heads import Candidate, HeadEntry, ModelReference, head_of, history_of
from tasks.store.objects import ObjectStore


class Decision(Settings):
    """What became of a model: whether the sequence goes on with it, and why not if it does not.

    `entry` is the new entry of the head's history, None when there was nothing to add.
    """

    stands: bool
    refused: tuple[Failure, ...] = ()
    entry: HeadEntry | None = None


@prefect.task(
    name="promote",
    task_run_name="promote-{model.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def promote(
    store: ObjectStore,
    sequence: str,
    policy: GatePolicy,
    model: ModelManifest,
    lineage: Mapping[str, str],
    before: ScoresManifest,
    after: ScoresManifest,
    override: str | None,
    actor: str,
) -> Decision:
    """Judge the model by its row and its parent's, and make it the head unless it is refused.

    `lineage` has the digest of each output that it came from. `override` is a person's reason to
    promote what the gate refuses; once given, it holds for that model. Raises StoreError when the
    store fails.
    """
    verdict = judge(policy, str(model.task), _row(before), _row(after))
    candidate = Candidate(
        model=ModelReference(output=f"{model.stage}/{model.key}", digest=model.digest),
        lineage=dict(lineage),
    )
    if not verdict.promoted and not override:
        if _was_overridden(store, sequence, candidate):
            return Decision(stands=True)
        _tell_refusal(store, sequence, model, verdict)
        return Decision(stands=False, refused=verdict.failures)
    entry = registry.promote(
        store,
        sequence,
        candidate,
        reason=(override or "") if not verdict.promoted else _passed(policy),
        actor=actor,
        verdict=None if policy.is_empty else verdict,
        again=False,
    )
    if entry is not None:
        run_logger().info("%s: head %d is %s, %s", sequence, entry.number, model.name, entry.kind)
    return Decision(stands=True, entry=entry)


def refusal(sequence: str, task: str, failures: Sequence[Failure]) -> str:
    """Say in one sentence what was refused, why, and what to do."""
    reasons = "; ".join(str(failure) for failure in failures)
    return (
        f"{sequence}: the gate refused the model after {task}: {reasons}; it is kept and the head "
        'stays, change the settings or promote it with `gift run --override "reason"`'
    )


def verdict_rows(
    policy: GatePolicy, before: ScoresManifest, after: ScoresManifest
) -> list[dict[str, str | int | float]]:
    """What the gate looked at: a row a data set, and what it says of each, for a table.

    `after` is the row of a learnt model, `before` that of its parent. Raises DataError when the
    rows do not name the same data sets.
    """
    learnt = str(after.after_task)
    was, now = _row(before), _row(after)
    broken = {(failure.rule, failure.task) for failure in judge(policy, learnt, was, now).failures}
    names = list(now.tasks)
    place = names.index(learnt)
    looked_at = [
        *((name, "earlier task", "max_drop_per_task", was, now) for name in names[:place]),
        (learnt, "just learnt", "min_gain", was, now),
    ]
    later = names[place + 1 :]
    if later:
        means = [{TRANSFER: sum(row.tasks[n] for n in later) / len(later)} for row in (was, now)]
        looked_at.append((TRANSFER, "mean", "max_transfer_drop", *(Row(mean) for mean in means)))
    rows = [_verdict_row(policy, broken, *each) for each in looked_at]
    panels = Row(was.panel), Row(now.panel)
    rows += [
        _verdict_row(policy, broken, name, "panel", "max_panel_drop", *panels) for name in now.panel
    ]
    return rows


def _verdict_row(
    policy: GatePolicy,
    broken: set[tuple[str, str]],
    name: str,
    role: str,
    rule: str,
    was: Row,
    now: Row,
) -> dict[str, str | int | float]:
    bound: float | None = getattr(policy, rule)
    return {
        "data set": name,
        "role": role,
        "before, %": round(was.tasks[name], 2),
        "after, %": round(now.tasks[name], 2),
        "change": round(now.tasks[name] - was.tasks[name], 2),
        "rule": "no rule" if bound is None else f"{rule}: {bound:g}",
        "verdict": "broken" if (rule, name) in broken else "-" if bound is None else "kept",
    }


def _row(scores: ScoresManifest) -> Row:
    return Row(
        tasks={score.data_set: score.percent for score in scores.tasks},
        panel={score.data_set: score.percent for score in scores.panel},
    )


def _passed(policy: GatePolicy) -> str:
    return "no gate is set" if policy.is_empty else "passed the gate"


def _was_overridden(store: ObjectStore, sequence: str, candidate: Candidate) -> bool:
    return any(
        entry.kind == "overridden" and entry.model == candidate.model
        for entry in history_of(store, sequence)
    )


def _tell_refusal(
    store: ObjectStore, sequence: str, model: ModelManifest, verdict: Verdict
) -> None:
    head = head_of(store, sequence)
    stays = f"stays at entry {head.number}" if head else "is still none"
    run_logger().warning(
        "%s: the model after %s is refused by the gate, the head %s", sequence, model.task, stays
    )
    for failure in verdict.failures:
        run_logger().warning("against the gate: %s", failure)
