"""The text that shows how a sequence stands: matrix, verdict and history, whatever they hold."""

import re

from gift_core.gate import GatePolicy
from tasks.promote import promote
from tasks.sequence_page import State, sequence_page, state_of
from tasks.store.heads import history_of
from tasks.store.registry import rollback
from tests.tasks.conftest import MadeUpRun, made_up_run

STRICT = GatePolicy(max_drop_per_task=10, min_gain=5)
HOSTILE = "<script>alert(1)</script> | ![x](http://evil.example/x.png) `a`\n# b"


def learnt(run: MadeUpRun, number: int, policy: GatePolicy, override: str | None = None) -> State:
    """The state right after the gate has judged the model of task `number`."""
    made = (*run.models[: number + 1], *run.scores[: number + 1])
    lineage = {f"{each.stage}/{each.key}": each.digest for each in made}
    rows = run.scores[number - 1 : number + 1]
    model = run.models[number]
    decision = promote.fn(
        run.store, "little", policy, model, lineage, *rows, override, "flow run 7"
    )
    state = state_of(run.store, "little", policy, lineage, not decision.stands)
    assert state is not None
    return state


def test_it_grows_with_every_task(run: MadeUpRun) -> None:
    first = sequence_page(learnt(run, 1, GatePolicy()))
    assert "**1 of 3 tasks learnt.** The head is entry 1, promoted." in first
    assert "| after digits | **96.00** | *50.50* | *61.50* |" in first
    assert "after photos" not in first
    second = sequence_page(learnt(run, 2, GatePolicy()))
    assert "| after photos | 95.50 | **95.00** | *61.00* |" in second
    assert "| 50.50 | 84.25 | 95.25 |" in second, "transfer, average, last over two tasks"
    history = second.split("### History")[1]
    assert re.findall(r"^\| (\d) \| (\w+) \|", history, re.MULTILINE) == [
        ("2", "promoted"),
        ("1", "promoted"),
    ]
    assert "no gate is set | flow run 7 |" in history
    assert len(second) < 60_000


def test_a_refusal_shows_the_rows_and_that_the_head_stays(run: MadeUpRun) -> None:
    forgetful = made_up_run(run.store, "little", ("digits", "photos", "sketches"), "finetune")
    learnt(forgetful, 1, STRICT)
    state = learnt(forgetful, 2, STRICT)
    page = sequence_page(state)
    assert "**The gate refused the model after photos**; it is kept, and the head stays" in page
    assert "entry 1, promoted" in page
    assert "### Verdict on the model after photos: refused" in page
    assert (
        r"| digits | earlier task | 96.0 | 82.0 | -14.0 | max\_drop\_per\_task: 10 | broken |"
        in page
    )
    overridden = sequence_page(learnt(forgetful, 2, STRICT, "the client asked"))
    assert "| 2 | overridden | finetune/" in overridden
    assert "the client asked" in overridden


def test_going_back_is_in_the_history(run: MadeUpRun) -> None:
    for number in (1, 2):
        state = learnt(run, number, GatePolicy())
    rollback(run.store, "little", reason="worse in the field", actor="anna")
    later = State(**{**vars(state), "history": history_of(run.store, "little")})
    assert "| 3 | rolled-back to 1 |" in sequence_page(later)
    assert "worse in the field | anna |" in sequence_page(later)


def test_words_from_outside_stay_words(run: MadeUpRun) -> None:
    state = learnt(run, 1, GatePolicy())
    entry = state.history[0].model_copy(update={"reason": HOSTILE, "actor": HOSTILE})
    page = sequence_page(State(**{**vars(state), "history": [entry], "name": HOSTILE}))
    assert "<script" not in page
    assert page.count("![") == 1
    assert "\n# b" not in page


def test_without_a_row_there_is_no_state(run: MadeUpRun) -> None:
    assert state_of(run.store, "little", GatePolicy(), ["finetune/x"], refused=False) is None
