"""Debian's Chromium for tests that look at pages; it asks nobody but 127.0.0.1."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright

OWN_HOSTS = {"127.0.0.1", "", None}
"""None: `data:` and `blob:` addresses, which ask nobody."""

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]


@contextmanager
def open_page(width: int = 1400, height: int = 1000) -> Iterator[Page]:
    """A page in headless Chromium that may talk to this machine only.

    AssertionError when there is no Chromium (it says what to install), and at the end when the
    page asked anybody else for anything.
    """
    chromium = shutil.which("chromium")
    assert chromium, "these tests look at pages: install Chromium (apt-get install chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(60_000)
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            yield page
            elsewhere = [url for url in asked if urlsplit(url).hostname not in OWN_HOSTS]
            assert not elsewhere, f"the page phoned {elsewhere[:3]}"
        finally:
            browser.close()


def count_drawn_pictures(page: Page) -> int:
    """How many pictures of the page really have pixels."""
    number: int = page.evaluate(
        "() => [...document.images].filter(i => i.complete && i.naturalWidth > 1).length"
    )
    return number


def screenshot(page: Page, path: Path) -> None:
    """Keep what the page shows; fails when the file is no picture of some size."""
    page.screenshot(path=str(path), full_page=True)
    assert path.stat().st_size > 5_000
