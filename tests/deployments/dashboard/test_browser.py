"""The page in Chromium, served by the command: nothing runs, nobody is asked, all of it is read."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tasks.report import load_sequence_manifest
from tasks.store.objects import FolderStore
from tests.browser import open_page, screenshot
from tests.deployments.conftest import Gift
from tests.deployments.dashboard.conftest import fill
from tests.deployments.dashboard.test_app import HOSTILE
from tests.tasks.conftest import MadeUpRun
from tests.worlds import ROOT

pytestmark = pytest.mark.timeout(300)
WIDTHS = {"desk": 1280, "phone": 360}
OVERFLOWS = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"
UNNAMED = """() => [...document.querySelectorAll('a, button, select, img')].filter(e =>
    !(e.innerText || e.alt || e.closest('figure') || e.labels?.length)).length"""


@contextmanager
def command(store: str) -> Iterator[str]:
    """`gift dashboard` on a free port; its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "deployments.cli", "dashboard", "--store", store, "--port", "0"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("gift dashboard: http://127.0.0.1:"), line + process.stdout.read()
        yield line.split()[2]
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=120)  # a loaded machine takes long to let torch go
    assert (process.returncode, rest) == (0, "")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    return FolderStore(tmp_path_factory.mktemp("seen") / "store")


@pytest.fixture(scope="module")
def little(store: FolderStore) -> MadeUpRun:
    return fill(store, reason=HOSTILE)[0]


@pytest.fixture(scope="module")
def address(store: FolderStore, little: MadeUpRun) -> Iterator[str]:
    with command(store.url) as url:
        yield url


def look(page: Page, url: str, shot: Path) -> str:
    """Open a page, see that it is sound, keep a picture, and give its text."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    answer = page.goto(url)
    assert answer is not None
    assert answer.status == 200
    page.evaluate("() => document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })")
    page.wait_for_function(
        "() => [...document.images].every(i => i.complete && i.naturalWidth > 1)"
    )
    assert page.evaluate("() => document.scripts.length") == 0
    assert page.evaluate(UNNAMED) == 0
    assert not page.evaluate(OVERFLOWS), "the page is wider than the window"
    assert complaints == []
    screenshot(page, shot)
    return page.inner_text("body")


@pytest.mark.parametrize("screen", WIDTHS)
def test_every_page_is_sound(address: str, little: MadeUpRun, tmp_path: Path, screen: str) -> None:
    base = "/sequences/little/outputs"
    made = (little.models[1], little.pairs[0], little.fishers[0], little.scores[1])
    paths = {
        "home": "/",
        "sequence": "/sequences/little",
        "overridden": "/sequences/plain",
        "refused": "/sequences/watched",
        "going": "/sequences/going",
        "compare": "/compare?a=little&b=plain",
        **{each.stage: f"{base}/{each.stage}/{each.key}" for each in made},
    }
    if screen == "phone":
        paths = {name: paths[name] for name in ("home", "sequence", "compare", "finetune")}
    with open_page(width=WIDTHS[screen]) as page:
        for name, path in paths.items():
            look(page, address + path, tmp_path / f"{name}.png")
            assert page.title() != "gone"


def test_the_matrix_is_a_table_with_its_values(
    address: str, store: FolderStore, tmp_path: Path
) -> None:
    run = load_sequence_manifest(store, "little")
    with open_page() as page:
        page.emulate_media(color_scheme="dark")
        text = look(page, f"{address}/sequences/little", tmp_path / "dark.png")
        table = page.get_by_role("table", name="Accuracy matrix of little")
        rows = table.get_by_role("row").all()
        shown = [row.get_by_role("cell").all_inner_texts() for row in rows[1:]]
        ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(19, 21, 24)", "dark where the system is"
    for cells, row in zip(shown, (run.zero_shot, *run.matrix), strict=True):
        values = [cell.split(",")[0].strip() for cell in cells[: len(row)]]
        assert values == [f"{value:.1f}" for value in row]
    assert HOSTILE in text, "the reason of an entry is shown as it was written"


def test_a_person_finds_the_way_with_the_keyboard(address: str) -> None:
    with open_page() as page:
        page.goto(address)
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.className") == "skip"
        page.get_by_role("link", name="little", exact=True).focus()
        page.keyboard.press("Enter")
        page.get_by_role("heading", level=1, name="little").wait_for()
        page.get_by_role("link", name="Full report").press("Enter")
        page.get_by_text("Accuracy matrix").first.wait_for()
        page.go_back()
        page.get_by_role("link", name="Compare with another").press("Enter")
        page.get_by_label("Second").select_option("plain")
        page.get_by_role("button", name="Compare").press("Enter")
        page.get_by_text("Settings that differ").wait_for()
        assert page.url.endswith("/compare?a=little&b=plain")


def test_an_address_that_is_taken_is_one_sentence(
    gift: Gift, address: str, store: FolderStore
) -> None:
    port = address.rsplit(":", 1)[1]
    code, _, error = gift("dashboard", "--store", store.url, "--port", port)
    assert (code, len(error.strip().splitlines())) == (2, 1)
    assert f"cannot listen on 127.0.0.1:{port}" in error
