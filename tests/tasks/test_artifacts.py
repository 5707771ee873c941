"""What Prefect's pages show: contents as plain functions, and published to a real server."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact

from gift_core.gate import GatePolicy
from tasks import artifacts, publishing
from tasks.curves import LOSS_TERMS, first_and_last
from tasks.progress import Progress
from tasks.report import report
from tasks.store.history import read_history
from tasks.store.outputs import Produced, read_run_record
from tasks.store.shards import ReplayPair
from tests.tasks.conftest import MadeUpRun, history
from tests.worlds import png

HOSTILE = "<script>alert(1)</script> | ![x](http://evil.example/x.png) `a`\n# b"


def embedded(markdown: str, kind: str) -> bytes:
    """The first picture of a kind in a text."""
    found = re.search(rf"!\[[^\]]*\]\(data:image/{kind};base64,([A-Za-z0-9+/=]+)\)", markdown)
    assert found is not None
    return base64.b64decode(found.group(1))


def noisy_pairs(number: int, side: int) -> list[ReplayPair]:
    """Pictures that no compression helps with."""
    generator = np.random.Generator(np.random.PCG64(0))
    return [
        ReplayPair(
            image_bytes=png(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)),
            prompt=f"a photo of noise {index}.",
            seed=index,
            generator="noise",
            task="noise",
            index=index,
        )
        for index in range(number)
    ]


def test_pairs_show_counts_pictures_and_prompts(run: MadeUpRun) -> None:
    pairs = artifacts.sample_pairs(run.store, run.pairs[0], 48)
    markdown = artifacts.pairs_markdown(run.pairs[0], pairs)
    assert len(pairs) == 10
    assert "10 pairs kept, 1 picture replaced" in markdown
    assert markdown.count("a photo of a one.") == markdown.count("a photo of a two.") == 5
    sheet = Image.open(io.BytesIO(embedded(markdown, "png")))
    assert sheet.size == (8 * 100 - 4, 2 * 100 - 4)


def test_only_the_shards_that_are_needed_are_read(run: MadeUpRun) -> None:
    second = run.pairs[0].files[1]
    run.store.delete(second.path)
    assert len(artifacts.sample_pairs(run.store, run.pairs[0], 8)) == 8


@pytest.mark.parametrize("side", [32, 300])
def test_pictures_that_do_not_compress_leave_the_text_small(run: MadeUpRun, side: int) -> None:
    markdown = artifacts.pairs_markdown(run.pairs[0], noisy_pairs(48, side))
    assert 20_000 < len(markdown) < 300_000
    num_shown = markdown.count("a photo of noise")
    assert f"The first {num_shown} pairs" in markdown


def test_model_shows_curves_losses_and_time(run: MadeUpRun) -> None:
    model = run.models[1]
    record = read_run_record(run.store, model)
    markdown = artifacts.model_markdown(model, read_history(run.store, model), record)
    assert b"Contrastive distillation" in embedded(markdown, r"svg\+xml")
    assert "120 steps in 0." in markdown
    assert "cpu" in markdown
    assert "| Weight consolidation |" in markdown
    assert " on cpu" not in artifacts.model_markdown(model, history(120), None)
    assert record is not None
    noted = record.model_copy(update={"measured": {"images_a_second": 812.4, "peak_gib": 3.25}})
    whole = artifacts.model_markdown(model, history(120), noted)
    assert "Images a second: 812; peak gib: 3.25." in whole
    assert "learning rate and gradient norm" in whole


def test_first_and_last_losses_are_means_of_a_tenth() -> None:
    """Steps 1 to 20 with loss = step: the first tenth is (1 + 2) / 2, the last (19 + 20) / 2."""
    columns = {name: list(range(1, 21)) for name in ("step", *LOSS_TERMS)}
    assert first_and_last(columns)[0] == ("Task", 1.5, 19.5)


def test_drift_is_a_row_a_block(run: MadeUpRun) -> None:
    rows = artifacts.drift_rows(run.fishers[0])
    assert [row["block"] for row in rows] == [block.block for block in run.fishers[0].drift]
    assert rows[0]["relative, %"] == pytest.approx(100 * run.fishers[0].drift[0].relative, rel=1e-3)
    assert b"visual.conv1" in embedded(artifacts.drift_markdown(run.fishers[0]), r"svg\+xml")


def test_scores_are_a_row_a_data_set(run: MadeUpRun) -> None:
    assert artifacts.scores_rows(run.scores[1])[0] == {
        "data set": "digits",
        "role": "task",
        "split": "test",
        "accuracy, %": 96.0,
        "correct": 384,
        "images": 400,
    }
    assert artifacts.scores_rows(run.scores[1])[-1]["role"] == "panel"


def test_sequence_shows_matrix_metrics_and_pictures(run: MadeUpRun) -> None:
    manifest = report.fn(*run.arguments).manifest
    rows = artifacts.matrix_rows(manifest)
    assert [row["model"] for row in rows] == [
        "zero-shot", "after digits", "after photos", "after sketches",
    ]  # fmt: skip
    assert rows[0] == {
        "model": "zero-shot", "digits": 40.0, "photos": 51.0, "sketches": 62.0, "held-out": 62.0,
    }  # fmt: skip
    markdown = artifacts.sequence_markdown(manifest, artifacts._samples(run.store, manifest, 8))
    assert f"| average | {manifest.metrics['average']:.2f} |" in markdown
    assert b"after sketches" in embedded(markdown, r"svg\+xml")
    sheet = Image.open(io.BytesIO(embedded(markdown, "png")))
    assert sheet.size == (8 * 100 - 4, 3 * 100 - 4)
    assert len(markdown) < 300_000


def test_words_from_outside_stay_words(run: MadeUpRun) -> None:
    pairs = [
        ReplayPair(pair.image_bytes, HOSTILE, pair.seed, pair.generator, pair.task, pair.index)
        for pair in artifacts.sample_pairs(run.store, run.pairs[0], 1)
    ]
    markdown = artifacts.pairs_markdown(run.pairs[0], pairs)
    assert "<script" not in markdown
    assert markdown.count("![") == 1  # the contact sheet alone
    assert markdown.rstrip().endswith(
        r"| 1 | 1 | &lt;script&gt;alert(1)&lt;/script&gt; \| \!\[x\](http://evil.example/x.png)"
        r" \`a\` \# b | 100000 |"
    )


def test_outside_a_run_nothing_is_read_or_published(run: MadeUpRun) -> None:
    for path in run.store.list("outputs"):
        run.store.delete(path)
    artifacts.publish_pairs(run.store, run.pairs[0])
    artifacts.publish_model(run.store, run.models[1])
    artifacts.publish_fisher(run.fishers[0])
    artifacts.publish_scores(run.scores[0])
    artifacts.publish_output(run.store, Produced(run.models[1], reused=True))
    artifacts.publish_state(run.store, "little", GatePolicy(), ["evaluate/x"], refused=False)


def test_a_server_that_refuses_does_not_fail_the_work(
    run: MadeUpRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr(publishing, "inside_run", lambda: True)
    monkeypatch.setattr(publishing, "create_table_artifact", refuse)
    artifacts.publish_scores(run.scores[0])
    assert "artifact accuracy-zero-shot was not kept: no server" in caplog.messages


@pytest.mark.usefixtures("prefect_api")
def test_everything_is_published_to_a_server(run: MadeUpRun) -> None:
    @flow(persist_result=False)
    def look() -> None:
        manifest = report(*run.arguments).manifest
        artifacts.publish_pairs(run.store, run.pairs[0])
        for model in run.models:
            artifacts.publish_model(run.store, model)
        artifacts.publish_fisher(run.fishers[0])
        artifacts.publish_scores(run.scores[0])
        artifacts.publish_scores(run.scores[1])
        artifacts.publish_sequence(run.store, manifest)
        artifacts.publish_output(run.store, Produced(run.models[1], reused=True), run.models)
        artifacts.publish_verdict("little", GatePolicy(), *run.scores[:2], stands=True)
        for scores in (manifest.scores[:2], manifest.scores):
            artifacts.publish_state(run.store, "little", GatePolicy(), scores, refused=False)
        with Progress("Evaluating", 4, "images") as progress:
            progress.advance(3)

    look()
    expected = [
        "pairs-digits", "model-digits", "model-photos", "model-sketches", "drift-digits",
        "drift-figure-digits", "accuracy-zero-shot", "accuracy-after-digits",
        "accuracy-matrix-little", "sequence-report-little", "progress-evaluating",
        f"finetune-{run.models[1].key[:12]}", "verdict-little-digits", "sequence-little",
    ]  # fmt: skip
    found = {artifact.key: artifact for artifact in stored_artifacts(expected)}
    assert set(found) == set(expected)
    assert found["accuracy-matrix-little"].type == "table"
    assert found["sequence-report-little"].type == "markdown"
    assert found["progress-evaluating"].data == 75.0
    pages = latest_texts("sequence-little")
    assert len(pages) == 2, "every version is kept under one key"
    assert "**3 of 3 tasks learnt.**" in pages[0]
    assert "**1 of 3 tasks learnt.**" in pages[1]


def latest_texts(key: str) -> list[str]:
    """The versions of an artifact, newest first."""
    found = sorted(stored_artifacts([key]), key=lambda each: str(each.created), reverse=True)
    return [str(each.data) for each in found]


def stored_artifacts(keys: list[str]) -> list[Artifact]:
    """The artifacts with these keys; other tests keep theirs on the same server."""
    with get_client(sync_client=True) as client:
        return client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=keys))
        )
