"""README's service: a server, a worker, `prefect deploy --all`, a run, and what people see."""

import json
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.browser import count_drawn_pictures, open_page, screenshot
from tests.prefect_server import PrefectServer, running_server
from tests.worlds import tiny_sequence

pytestmark = pytest.mark.timeout(600)
STAGE_RUNS = {
    "pretrained",
    "evaluate-after-pretrained",
    *(
        f"{stage}-{task}"
        for stage in ("synthesize", "finetune", "estimate-fisher", "evaluate-after", "promote")
        for task in ("warm", "cold")
    ),
    "report-tiny",
}


@dataclass(frozen=True)
class Served:
    """A server that ran the tiny sequence once through its deployment."""

    server: PrefectServer
    output: str
    shots: Path

    def post(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Ask the server's API."""
        request = urllib.request.Request(  # noqa: S310
            f"{self.server.url}/api{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            found: list[dict[str, Any]] = json.load(answer)
            return found

    def runs(self) -> dict[str, dict[str, Any]]:
        """Flow runs by name."""
        return {run["name"]: run for run in self.post("/flow_runs/filter", {"limit": 100})}


@pytest.fixture(scope="module")
def served(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    sequence = tiny_sequence(tiny_data, str(folder / "store"))
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(sequence.model_dump(mode="json")))
    with running_server(folder / "prefect") as server:
        server.prefect("work-pool", "create", "cpu", "--type", "process")
        server.prefect("work-pool", "create", "gpu", "--type", "process")
        server.prefect("--no-prompt", "deploy", "--all")
        server.prefect("automation", "create", "--from-file", "deployments/automations.yaml")
        with server.worker("cpu"):
            output = server.prefect(
                *("deployment", "run", "gift/continual-sequence", "--watch"),
                *("--param", f"file={json.dumps(str(file))}"),
                seconds=500,
            )
        yield Served(server, output, folder)


def test_the_run_completes_and_every_stage_is_a_run_of_its_own(served: Served) -> None:
    runs = served.runs()
    assert runs["tiny"]["state"]["type"] == "COMPLETED"
    assert runs.keys() >= STAGE_RUNS
    assert {runs[name]["state"]["type"] for name in STAGE_RUNS} == {"COMPLETED"}
    assert all(runs[name]["parent_task_run_id"] for name in STAGE_RUNS)


def test_parameters_and_artifacts_hold_no_secret_and_no_bytes(served: Served) -> None:
    for run in served.runs().values():
        assert len(json.dumps(run["parameters"])) < 100_000


def test_run_page_lists_the_stages(served: Served) -> None:
    run = served.runs()["tiny"]
    with open_page() as page:
        page.goto(f"{served.server.url}/runs/flow-run/{run['id']}")
        page.get_by_text("Subflow Runs").click()
        # The list shows ten runs a page, the newest first; the oldest come last.
        for name in STAGE_RUNS - {"pretrained", "evaluate-after-pretrained", "synthesize-warm"}:
            page.get_by_text(name).first.wait_for()
        screenshot(page, served.shots / "run.png")


def test_the_accuracy_matrix_is_a_table(served: Served) -> None:
    (artifact,) = served.post(
        "/artifacts/latest/filter", {"artifacts": {"key": {"any_": ["accuracy-matrix-tiny"]}}}
    )
    rows = json.loads(artifact["data"])
    with open_page() as page:
        page.goto(f"{served.server.url}/artifacts/artifact/{artifact['latest_id']}")
        page.get_by_text("zero-shot").first.wait_for()
        text = page.inner_text("body")
        screenshot(page, served.shots / "matrix.png")
    assert len(rows) == 3
    for row in rows:
        for value in row.values():
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            assert shown in text, f"the page does not show {value}"


@pytest.mark.parametrize(
    "key",
    ["pairs-warm", "model-warm", "drift-figure-cold", "sequence-report-tiny", "sequence-tiny"],
)
def test_pictures_are_drawn(served: Served, key: str) -> None:
    found = served.post("/artifacts/latest/filter", {"artifacts": {"key": {"like_": key}}})
    pictured = [artifact for artifact in found if "data:image" in str(artifact["data"])]
    assert pictured, f"no artifact {key} with a picture"
    expected = len(re.findall(r"!\[[^\]]*\]\(data:image", str(pictured[0]["data"])))
    assert expected > 0
    with open_page() as page:
        page.goto(f"{served.server.url}/artifacts/artifact/{pictured[0]['latest_id']}")
        page.wait_for_function(
            "n => [...document.images].filter(i => i.complete && i.naturalWidth > 1).length >= n",
            arg=expected,
        )
        assert count_drawn_pictures(page) >= expected
        screenshot(page, served.shots / f"{key}.png")


def test_an_output_leads_to_what_it_was_made_from(served: Served) -> None:
    """From the model after cold by its link to the model after warm, and the run that made it."""
    found = served.post("/artifacts/latest/filter", {"artifacts": {"key": {"like_": "finetune-"}}})
    (cold,) = [each for each in found if "## finetune: cold" in str(each["data"])]
    (warm,) = [each for each in found if "## finetune: warm" in str(each["data"])]
    with open_page() as page:
        page.goto(f"{served.server.url}/artifacts/artifact/{cold['latest_id']}")
        link = page.get_by_role("link", name="finetune warm")
        link.wait_for()
        page.goto(f"{served.server.url}{link.get_attribute('href')}")
        page.get_by_text(str(warm["key"])).first.wait_for()
        page.get_by_text("finetune-warm").first.wait_for()  # the run that made it
        screenshot(page, served.shots / "output.png")


def test_the_run_form_explains_every_setting(served: Served) -> None:
    name = {"deployments": {"name": {"any_": ["continual-sequence"]}}}
    (deployment,) = served.post("/deployments/filter", name)
    assert deployment["entrypoint"] == "flows.continual_sequence.continual_sequence"
    schema = deployment["parameter_openapi_schema"]
    settings = schema["definitions"]["FinetuneSettings"]["properties"]
    assert "paper: 1000" in settings["num_steps"]["description"]
