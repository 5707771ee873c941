"""The page over HTTP: what each shows, and that it only reads, refuses and escapes."""

import re
import secrets

import pytest

from deployments.dashboard.app import HERE
from deployments.seaweed import Endpoint
from tasks.manifests import canonical_json
from tasks.report import load_sequence_manifest
from tasks.store.address import open_store
from tasks.store.heads import head_path
from tasks.store.inventory import candidate_of, take_inventory
from tasks.store.objects import FolderStore
from tasks.store.registry import promote
from tests.deployments.dashboard.conftest import Answer, Shown, served
from tests.deployments.made_up_stores import reported
from tests.tasks.conftest import made_up_run

HOSTILE = "<script>document.title='gone'</script>\"'&"


def sentence(answer: Answer) -> str:
    """The one sentence of a page that tells what is wrong."""
    (found,) = re.findall(r'<p class="sentence">(.*?)</p>', answer.text)
    assert "Traceback" not in answer.text
    return str(found)


def outputs(shown: Shown) -> list[str]:
    """The pages of every kind of output."""
    run = shown.little
    made = (run.models[0], run.models[1], run.pairs[0], run.fishers[0], run.scores[1])
    return [f"/sequences/little/outputs/{each.stage}/{each.key}" for each in made]


def test_every_page_answers_and_asks_nobody(shown: Shown) -> None:
    store, run = shown.store, load_sequence_manifest(shown.store, "little")
    (shard, *_) = store.list("outputs/synthesize-shard")
    paths = [
        *("/", "/compare", "/compare?a=little&b=plain", f"/sequences/little/runs/{run.key}"),
        *(f"/sequences/{name}" for name in ("little", "plain", "watched", "going")),
        *(*outputs(shown), f"/sequences/little/{'/'.join(shard.split('/')[:3])}"),
        f"/sequences/little/outputs/report/{run.key}",
    ]
    for path in paths:
        answer = shown.site.get(path)
        assert (path, answer.status) == (path, 200)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in re.sub(r"http://www.w3.org/2000/svg", "", answer.text)
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=", answer.text)


def test_the_list_shows_heads_and_metrics(shown: Shown) -> None:
    text = shown.site.get("/").text
    metrics = load_sequence_manifest(shown.store, "little").metrics
    for value in (metrics["transfer"], metrics["average"], metrics["last"]):
        assert f"<dd>{value:.1f}</dd>" in text
    for words in ("rolled back to 1", "overridden", "no head", "no finished run yet", "refused"):
        assert words in text


def test_a_sequence_shows_matrix_verdicts_and_history(shown: Shown) -> None:
    run = load_sequence_manifest(shown.store, "little")
    text = shown.site.get("/sequences/little").text
    for row in (run.zero_shot, *run.matrix):
        for value in row:
            assert f'title="{value:.4f} %">{value:.1f}<' in text
    for words in ("worse in the field", "anna@lab", "entry 3", "rolled back to 1", "Before photos"):
        assert words in text
    text = shown.site.get("/sequences/plain").text
    assert re.search(r"max_drop_per_task</code></th><td>digits</td>.*>95.0<.*>81.5<", text)
    assert "Refused after photos" in shown.site.get("/sequences/watched").text


def test_a_run_that_goes_on_shows_the_rows_that_it_has(shown: Shown) -> None:
    text = shown.site.get("/sequences/going").text
    assert "1 of 2 learnt" in text
    assert "after digits" in text
    assert "after photos" not in text


def test_an_output_shows_files_inputs_and_settings(shown: Shown) -> None:
    model = shown.little.models[1]
    text = shown.site.get(f"/sequences/little/outputs/finetune/{model.key}").text
    for ref in model.files:
        assert ref.sha256 in text
        assert ref.name in text
    parent, pairs = shown.little.models[0], shown.little.pairs[0]
    assert f'outputs/pretrained/{parent.key}">parent</a>' in text
    assert f'outputs/synthesize/{pairs.key}">pairs</a>' in text
    text = shown.site.get(f"/sequences/little/outputs/synthesize/{pairs.key}").text
    assert text.count("data:image/png;base64,") == 8
    assert "a photo of a one." in text
    shard = pairs.files[0].path.split("/")[2]
    assert f"outputs/synthesize-shard/{shard}" in text


def test_pictures_are_pictures(shown: Shown) -> None:
    model, pairs, fisher = shown.little.models[1], shown.little.pairs[0], shown.little.fishers[0]
    base = "/sequences/little/outputs"
    drawn = {
        "/sequences/little/accuracy.svg": b"after photos",
        f"{base}/finetune/{model.key}/losses.svg": b"Contrastive distillation",
        f"{base}/finetune/{model.key}/steering.svg": b"Gradient norm",
        f"{base}/estimate-fisher/{fisher.key}/drift.svg": b"visual.conv1",
    }
    for path, words in drawn.items():
        answer = shown.site.get(path)
        assert (answer.status, answer.headers["content-type"]) == (200, "image/svg+xml")
        assert words in answer.body
        assert "sandbox" in answer.headers["content-security-policy"]
    assert shown.site.get(f"{base}/synthesize/{pairs.key}/sheet.png").body[:4] == b"\x89PNG"
    assert shown.site.get(f"{base}/finetune/{model.key}/nothing.svg").status == 404


def test_the_report_is_served_as_it_is_without_rights(shown: Shown) -> None:
    answer = shown.site.get("/sequences/little/report")
    assert answer.body == shown.store.read_bytes("reports/little/report.html")
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert sentence(shown.site.get("/sequences/going/report")).startswith("going has no report yet")


def test_two_runs_are_compared(shown: Shown) -> None:
    text = shown.site.get("/compare?a=little&b=plain").text
    left, right = (load_sequence_manifest(shown.store, name) for name in ("little", "plain"))
    change = right.matrix[1][0] - left.matrix[1][0]
    assert change == -13.5
    assert "\N{MINUS SIGN}13.5</td>" in text
    assert re.search(r"<code>method</code></th><td>gift</td><td>finetune</td>", text)
    assert "<code>seed</code>" not in text
    again = shown.site.get(f"/compare?a=little/{left.key}&b=little").text
    assert "None: the settings are equal." in again


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/sequences/nobody",
        "/sequences/nobody/report",
        "/sequences/UPPER",
        "/sequences/little/runs/" + "0" * 64,
        "/sequences/little/outputs/finetune/" + "0" * 64,
        "/sequences/little/outputs/heads/" + "0" * 64,
        "/compare?a=little&b=nobody",
        "/compare?a=little&b=going",
    ],
)
def test_what_is_not_there_is_one_sentence(shown: Shown, path: str) -> None:
    answer = shown.site.get(path)
    assert answer.status == 404
    assert 10 < len(sentence(answer)) < 300


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/sequences/..",
        "/sequences/..%2f..%2f..%2fetc%2fpasswd",
        "/sequences/%2e%2e/report",
        "/sequences/little/outputs/finetune/..%2f..%2f..%2freports%2flittle",
        "/sequences/little/outputs/..%2f..%2freports/little",
        "/sequences/little/runs/..%2f..%2fheads",
        "/compare?a=../..&b=little/../../heads",
        "/sequences/little%00",
        "//etc/passwd",
    ],
)
def test_no_path_leaves_the_store(shown: Shown, path: str) -> None:
    answer = shown.site.get(path)
    assert answer.status in {404, 503}
    assert b"root:" not in answer.body
    assert (HERE / "app.py").read_bytes()[:40] not in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_only_reads(shown: Shown, method: str) -> None:
    before = shown.store.list()
    for path in ("/", "/sequences/little", "/nothing", "/static/page.css"):
        answer = shown.site.get(path, method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert shown.store.list() == before
    assert shown.site.get("/", "HEAD").body == b""


def test_another_name_for_this_machine_is_not_answered(shown: Shown) -> None:
    assert shown.site.get("/", host="evil.example").status == 400
    assert shown.site.get("/", host="localhost").status == 200


def test_hostile_words_are_words(folder: FolderStore) -> None:
    run = reported(folder)
    candidate = candidate_of(take_inventory(folder), f"finetune/{run.models[1].key}")
    promote(folder, "little", candidate, reason=HOSTILE, actor=HOSTILE)
    manifest = load_sequence_manifest(folder, "little")
    names = (HOSTILE, "x" * 300)
    settings = {**manifest.settings, "method": HOSTILE, HOSTILE: {HOSTILE: [HOSTILE]}}
    edited = manifest.model_copy(
        update={"tasks": names, "method": HOSTILE, "settings": settings, "panel": {}}
    )
    record = canonical_json(edited.model_dump(mode="json"))
    folder.replace_bytes("reports/little/sequence.json", record)
    made_up_run(folder, "evil", class_names=(HOSTILE, "two"))
    with served(folder) as site:
        for path in (
            "/",
            "/sequences/little",
            "/compare?a=little&b=little",
            "/compare?a=%3Cscript",
        ):
            answer = site.get(path)
            assert answer.status in {200, 404}
            assert "<script" not in answer.text
        assert "&lt;script&gt;" in site.get("/sequences/little").text


def test_damage_is_told_and_the_rest_is_shown(folder: FolderStore) -> None:
    run = reported(folder)
    model, pairs = run.models[1], run.pairs[0]
    base = "/sequences/little/outputs"
    folder.delete(pairs.files[0].path)
    folder.delete(model.file("history.json").path)
    folder.replace_bytes(f"outputs/evaluate/{run.scores[0].key}/manifest.json", b"{torn")
    folder.replace_bytes("reports/little/sequence.json", b"[]")
    with served(folder) as site:
        text = site.get("/sequences/little").text
        assert "is not a sequence&#39;s manifest" in text
        assert "entry 2" in text, "the head is still shown"
        assert "is not a sequence&#39;s manifest" in site.get("/").text
        text = site.get(f"{base}/synthesize/{pairs.key}").text
        assert "does not exist; run the sequence again" in text
        assert ">missing<" in text
        assert ">missing<" in site.get(f"{base}/finetune/{model.key}").text
        answer = site.get(f"{base}/evaluate/{run.scores[0].key}")
        assert (answer.status, "cannot be read as a manifest" in sentence(answer)) == (503, True)
        folder.replace_bytes(head_path("little"), b"{}")
        answer = site.get("/sequences/little")
        assert (answer.status, "restore it from a backup" in sentence(answer)) == (503, True)
        assert site.get("/").status == 200


def test_lists_read_neither_shards_nor_weights(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    for name in ("read_bytes", "read_range", "read_chunks", "read_versioned"):
        real = getattr(FolderStore, name)

        def noted(self: FolderStore, path: str, *rest: object, real: object = real) -> object:
            read.append(path)
            return real(self, path, *rest)  # type: ignore[operator]

        monkeypatch.setattr(FolderStore, name, noted)
    for path in ("/", "/sequences/little", "/compare?a=little&b=plain"):
        assert shown.site.get(path).status == 200
    assert read
    assert not [path for path in read if path.endswith((".parquet", ".safetensors", ".html"))]
    read.clear()
    key = shown.little.pairs[0].key
    shown.site.get(f"/sequences/little/outputs/synthesize/{key}/sheet.png")
    assert {path.rsplit("/", 1)[-1] for path in read if "shard" in path} == {"pairs-000000.parquet"}


def test_object_storage_is_shown_and_told_when_it_is_away(endpoint: Endpoint) -> None:
    store = open_store(f"s3://{endpoint.bucket}/{secrets.token_hex(4)}")
    run = reported(store)
    key = run.pairs[0].key
    with served(store.impatient()) as site:
        pages = [site.get(path) for path in ("/", "/sequences/little")]
        pages.append(site.get(f"/sequences/little/outputs/synthesize/{key}"))
        for answer in pages:
            assert answer.status == 200
            assert endpoint.secret not in answer.text
            assert endpoint.key not in answer.text
        assert pages[2].text.count("data:image/png;base64,") == 8
    away = open_store("s3://bucket/away", {"endpoint_url": "http://127.0.0.1:9"})
    with served(away.impatient()) as site:
        answer = site.get("/")
        assert (answer.status, "cannot list s3://bucket/away" in sentence(answer)) == (503, True)


def test_a_fault_of_the_page_is_one_sentence(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("deployments.dashboard.pages.home", broken)
    answer = shown.site.get("/")
    assert answer.status == 500
    assert "a fault of its own" in sentence(answer)
    assert "secret detail" not in answer.text
    assert "content-security-policy" in answer.headers
