"""The stage report: its manifest, its page, and that both come from the store alone."""

import json
import re
from html.parser import HTMLParser

import pytest

from gift_core.errors import StoreError
from gift_core.metrics import AccuracyMatrix, summarise
from tasks.manifests import Retrieval, SequenceManifest, output_key
from tasks.report import (
    load_sequence_manifest,
    load_summary,
    render_report,
    report,
    report_address,
)
from tasks.store.objects import FolderStore, ObjectStore
from tasks.store.outputs import run_output
from tests.tasks.conftest import MadeUpRun, made_up_run

HOSTILE = "<script>alert(1)</script>\"&'"
VOID = frozenset({"meta", "img", "br"})


class Page(HTMLParser):
    """A page as text, pictures and addresses; AssertionError when its elements do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.cells: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        self.addresses += [values[key] or "" for key in ("src", "href") if key in values]
        self.ids += [values["id"] or ""] if "id" in values else []
        assert not [name for name in values if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)
        if self.open and self.open[-1] == "td":
            self.cells.append(data.strip())

    @property
    def text(self) -> str:
        """What a reader reads, on one line."""
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeUpRun, SequenceManifest, str]:
    """GIFT compared with plain fine-tuning, its manifest and its page as the store has it."""
    store = FolderStore(tmp_path_factory.mktemp("compared"))
    names = ["one", HOSTILE]
    plain = made_up_run(store, "plain", ("digits", "photos"), "finetune")
    report.fn(*plain.arguments)
    run = made_up_run(store, "little", ("digits", "photos"), "gift", names, baseline="plain")
    manifest = report.fn(*run.arguments).manifest
    return run, manifest, store.read_bytes("reports/little/report.html").decode()


def test_metrics_are_those_of_the_core(
    compared: tuple[MadeUpRun, SequenceManifest, str],
) -> None:
    """Zero-shot 40, 51; after digits 96, 50.5; after photos 95.5, 95 (see the made-up run)."""
    run, manifest, _ = compared
    matrix = AccuracyMatrix(["digits", "photos"], [40.0, 51.0], [[96.0, 50.5], [95.5, 95.0]])
    assert manifest.metrics == summarise(matrix)
    assert manifest.metrics["transfer"] == 50.5
    summary = load_summary(run.store, manifest)
    assert summary == summarise(matrix) | {
        "tasks": ["digits", "photos"],
        "zero_shot": [40.0, 51.0],
        "matrix": [[96.0, 50.5], [95.5, 95.0]],
        "panel": {"held-out": [62.0, 61.5, 61.0]},
        "held_out": 61.0,
    }


def test_page_is_well_formed_and_stands_alone(
    compared: tuple[MadeUpRun, SequenceManifest, str],
) -> None:
    page = Page(compared[2])
    assert page.tags.isdisjoint({"script", "link", "iframe", "object"})
    outside = [address for address in page.addresses if not address.startswith(("data:", "#"))]
    assert outside == []
    assert "@import" not in compared[2]
    assert "url(" not in compared[2]
    assert len(page.ids) == len(set(page.ids))
    targets = {address[1:] for address in page.addresses if address.startswith("#")}
    assert targets <= set(page.ids)


def test_page_holds_every_number_of_the_matrix(
    compared: tuple[MadeUpRun, SequenceManifest, str],
) -> None:
    _, manifest, html = compared
    page = Page(html)
    for values in (manifest.zero_shot, *manifest.matrix, *manifest.panel.values()):
        for value in values:
            assert f"{value:.1f}" in page.cells
            assert f'title="{value:.4f} %"' in html
    for name in ("Transfer", "Average", "Last", "Learned", "Forgetting", "Forget, as released"):
        assert name in page.text


def test_page_compares_with_zero_shot_and_baseline(
    compared: tuple[MadeUpRun, SequenceManifest, str],
) -> None:
    """Transfer 50.5 is half a point below photos' zero-shot 51, and above plain's 51 - 14."""
    page = Page(compared[2])
    assert "Transfer 50.5 % \u22120.5 to zero-shot +13.5 to baseline" in page.text
    assert "held-out 61.0 % \u22121.0 to zero-shot +27.0 to baseline" in page.text


def test_page_shows_replay_prompts_escaped(
    compared: tuple[MadeUpRun, SequenceManifest, str],
) -> None:
    run, _, html = compared
    assert "<script" not in html
    assert "alert(1)&lt;/script&gt;" in html
    text = Page(html).text
    for manifest in run.pairs:
        assert text.count("a photo of a one.") >= len(run.pairs) * manifest.num_pairs // 2
    assert text.count(f"a photo of a {HOSTILE}.") == len(run.pairs) * 5


def test_page_names_every_output_settings_and_time(
    compared: tuple[MadeUpRun, SequenceManifest, str],
) -> None:
    run, manifest, html = compared
    text = Page(html).text
    outputs = (*run.models, *run.pairs, *run.fishers, *run.scores, manifest)
    for output in outputs:
        assert output.key in text
        assert output.digest in text
        for ref in output.files:
            assert ref.sha256 in text
    for word in ("warmup_steps", "guidance_scale", "consolidation", "torch 2.14.1", "on cpu"):
        assert word in text
    for stage in ("pretrained", "synthesize", "finetune", "estimate-fisher", "evaluate", "report"):
        assert stage in text


def test_page_is_drawn_again_from_the_store_alone(
    compared: tuple[MadeUpRun, SequenceManifest, str],
) -> None:
    run, manifest, html = compared
    elsewhere = FolderStore(run.store.root)  # type: ignore[attr-defined] - a folder's store
    assert render_report(elsewhere, load_sequence_manifest(elsewhere, "little")) == html
    assert f'<meta name="gift-manifest" content="{manifest.digest}">' in html
    assert report_address(elsewhere, "little").endswith("/reports/little/report.html")


def test_second_report_is_found_and_the_view_left_alone(store: ObjectStore) -> None:
    run = made_up_run(store, tasks=("digits",), method="finetune")
    first = report.fn(*run.arguments)
    path = "reports/little/report.html"
    marked = store.read_bytes(path) + b"<!-- a mark -->"
    store.replace_bytes(path, marked)
    second = report.fn(*run.arguments)
    assert (first.reused, second.reused) == (False, True)
    assert second.manifest == first.manifest
    assert store.read_bytes(path) == marked
    store.delete(path)
    report.fn(*run.arguments)
    assert store.read_bytes(path) == marked.removesuffix(b"<!-- a mark -->")


def test_view_of_another_manifest_is_replaced(store: ObjectStore) -> None:
    """The same name with another method and back: the page follows, nothing is made again."""
    runs = [made_up_run(store, tasks=("digits",), method=method) for method in ("l2", "finetune")]
    for run in (*runs, runs[0]):
        produced = report.fn(*run.arguments)
        assert load_sequence_manifest(store, "little") == produced.manifest
        html = store.read_bytes("reports/little/report.html").decode()
        assert produced.manifest.digest in html
    assert produced.reused


def test_digest_does_not_depend_on_the_store(store: ObjectStore) -> None:
    run = made_up_run(store, tasks=("digits",), method="finetune")
    other = FolderStore(store.root / "other")  # type: ignore[attr-defined] - a folder's store
    moved = made_up_run(other, tasks=("digits",), method="finetune")
    elsewhere = moved.sequence.model_copy(
        update={"store": moved.sequence.store.model_copy(update={"url": "s3://bucket/prefix"})}
    )
    first = report.fn(*run.arguments).manifest
    second = report.fn(other, elsewhere, *moved.arguments[2:]).manifest
    assert first.digest == second.digest
    assert "store" not in first.settings


def test_baseline_is_kept_when_its_name_means_another_run(store: ObjectStore) -> None:
    plain = made_up_run(store, "plain", ("digits",), "finetune")
    digest = report.fn(*plain.arguments).manifest.digest
    run = made_up_run(store, tasks=("digits",), method="l2", baseline="plain")
    manifest = report.fn(*run.arguments).manifest
    assert manifest.inputs["baseline"] == digest
    before = render_report(store, manifest)
    report.fn(*made_up_run(store, "plain", ("digits",), "l2").arguments)
    assert render_report(store, manifest) == before


def test_baseline_that_was_not_run_is_left_out(store: ObjectStore) -> None:
    run = made_up_run(store, tasks=("digits",), method="finetune", baseline="missing")
    manifest = report.fn(*run.arguments).manifest
    assert "baseline" not in manifest.inputs
    assert "to baseline" not in Page(render_report(store, manifest)).text


def test_page_tells_what_was_measured_and_keeps_silent_about_the_rest(store: ObjectStore) -> None:
    """Of the 400 pictures of digits 96 % are recognised, and 380 by who is not told the task."""
    run = made_up_run(store, tasks=("digits",))
    assert "not told" not in Page(render_report(store, report.fn(*run.arguments).manifest)).text
    row = run.scores[1]
    score = row.tasks[0].model_copy(
        update={"mean_per_class": 91.25, "calibration_error": 3.5, "num_correct_seen": 380}
    )
    found = Retrieval(num_pictures=10, num_pictures_right=7, num_prompts=2, num_prompts_right=1)
    settings = {"tasks": [{"class_names": ["one", "two"]}]}
    measured = row.model_copy(
        update={
            "tasks": (score,),
            "retrieval": found,
            "settings": settings,
            "key": output_key("evaluate", row.REVISION, row.inputs, settings, row.seed),
        }
    )
    rows = (run.scores[0], run_output(store, measured, lambda _folder: None).manifest)
    manifest = report.fn(*run.arguments[:-1], rows).manifest
    assert manifest.classes_seen == (95.0,)
    page = Page(render_report(store, manifest))
    assert "Avg 95.00, Last 95.00" in page.text
    assert "after digits 2 96.0 95.0" in page.text
    assert "digits 96.0 \u2013 91.2 3.5 95.0" in page.text
    assert "finds the prompt of 70.0 % of the pictures, and a picture of 50.0 % of" in page.text


def test_unknown_name_is_one_sentence_with_the_known_ones(store: ObjectStore) -> None:
    with pytest.raises(StoreError, match=r"no sequence 'x' in .*; it has none yet: run one first"):
        load_sequence_manifest(store, "x")
    for name in ("one", "two"):
        report.fn(*made_up_run(store, name, ("digits",), "finetune").arguments)
    with pytest.raises(StoreError, match=r"no sequence 'x' in .*; it has one, two$"):
        load_sequence_manifest(store, "x")


def test_torn_manifest_and_lost_output_are_sentences(store: ObjectStore) -> None:
    run = made_up_run(store, tasks=("digits",), method="finetune")
    manifest = report.fn(*run.arguments).manifest
    store.replace_bytes("reports/little/sequence.json", b'{"name": "little"}')
    with pytest.raises(StoreError, match="is not a sequence's manifest"):
        load_sequence_manifest(store, "little")
    store.delete(run.models[1].files[0].path)
    with pytest.raises(StoreError, match=r"the output finetune [0-9a-f]{12} is gone or damaged"):
        render_report(store, manifest)


def test_rows_out_of_order_are_refused(run: MadeUpRun) -> None:
    arguments = (*run.arguments[:-1], run.scores[::-1])
    with pytest.raises(ValueError, match="4 rows of scores, not zero-shot and after"):
        report.fn(*arguments)


def test_manifest_is_golden(compared: tuple[MadeUpRun, SequenceManifest, str]) -> None:
    """The format that the page, the command line and other tools read."""
    run, manifest, _ = compared
    stored = json.loads(run.store.read_bytes("reports/little/sequence.json"))
    assert stored == json.loads(run.store.read_bytes(f"{manifest.directory}/manifest.json"))
    assert sorted(stored) == [
        "files", "fishers", "inputs", "key", "matrix", "method", "metrics", "models", "name",
        "pairs", "panel", "refused", "schema_version", "scores", "seed", "settings", "stage",
        "tasks", "versions", "zero_shot",
    ]  # fmt: skip
    assert stored["models"] == [f"{model.stage}/{model.key}" for model in run.models]
    assert [len(stored[key]) for key in ("pairs", "fishers", "scores")] == [2, 2, 3]
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in stored["inputs"].values())
    assert [ref["path"].rsplit("/", 1)[1] for ref in stored["files"]] == ["summary.json"]
