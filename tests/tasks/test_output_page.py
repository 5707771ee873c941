"""The text that shows any output: its place, what it was made from, its files, its settings."""

import re

from tasks.manifests import Manifest
from tasks.output_page import MAX_ROWS, output_markdown
from tasks.store.outputs import Produced, read_run_record
from tests.tasks.conftest import MadeUpRun

HOSTILE = "<script>alert(1)</script> | ![x](http://evil.example/x.png) `a`\n# b"


def markdown(run: MadeUpRun, manifest: Manifest, *made_from: Manifest) -> str:
    record = read_run_record(run.store, manifest)
    return output_markdown(run.store, Produced(manifest, reused=False), record, made_from)


def test_inputs_are_linked_to_their_own_artifacts(run: MadeUpRun) -> None:
    model, parent, pairs = run.models[1], run.models[0], run.pairs[0]
    text = markdown(run, model, parent, pairs)
    assert "## finetune: digits" in text
    assert re.search(r"Computed by this run; it took 0\.\d\d s on cpu", text)
    assert f"`{run.store.url}/{model.directory}`" in text
    for role, made in (("parent", parent), ("pairs", pairs)):
        address = f"/artifacts/key/{made.stage}-{made.key[:12]}"
        place = f"`{run.store.url}/{made.directory}`"
        line = f"| {role} | [{made.stage} {made.name}]({address}) | {place} |"
        assert line in text
    assert f"| data | digest `{'d' * 16}` | |" in text
    for ref in model.files:
        assert f"{ref.num_bytes:,} | `{ref.sha256[:16]}` |" in text
    assert "| method | gift |" in text


def test_what_was_found_says_so(run: MadeUpRun) -> None:
    text = output_markdown(run.store, Produced(run.models[0], reused=True), None)
    assert "Found in the store, nothing was computed." in text


def test_it_stays_small_and_words_stay_words(run: MadeUpRun) -> None:
    settings = {f"field {n}": HOSTILE * 50 for n in range(300)}
    hostile = run.models[1].model_copy(update={"name": HOSTILE, "settings": settings})
    text = markdown(run, hostile)
    assert len(text) < 60_000
    assert f"and {300 - MAX_ROWS} more" in text
    assert "<script" not in text
    assert "![" not in text.replace(r"\!\[", "")
    assert "\n# b" not in text
