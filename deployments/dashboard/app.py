"""The page as a web application: GET only, nothing from elsewhere, one sentence for what is wrong.

Everything that a store holds may have been written by somebody else. It is escaped by the templates
and the browser is told (Content-Security-Policy) to run nothing and to ask nobody.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.dashboard import pages
from deployments.dashboard.comparison import compare_page
from deployments.dashboard.outputs import figure, output_page, sheet
from deployments.dashboard.reading import NotFound, Shelf
from deployments.dashboard.words import FILTERS
from gift_core.errors import GiftError, SettingsError
from tasks.report import report_path
from tasks.store.objects import ObjectStore

HERE = Path(__file__).parent
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
FOREIGN = {
    "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'"
}
"""For a whole page or drawing out of the store: it has styles of its own, and no rights."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Guard:
    """Refuse all that is not a question, and put the headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.decode().lower() for name, _ in message["headers"]}
                message["headers"] += [
                    (name.encode(), value.encode())
                    for name, value in HEADERS.items()
                    if name not in given
                ]
            await send(message)

        if scope["type"] == "http" and scope["method"] not in {"GET", "HEAD"}:
            refused = Response("This page is for reading: it answers GET alone.\n", 405)
            refused.headers["allow"] = "GET, HEAD"
            await refused(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)


class Pages:
    """The pages over one store: each reads, fills a template, and says what is wrong."""

    def __init__(self, store: ObjectStore) -> None:
        self._shelf = Shelf(store)
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(FILTERS)
        self._templates.globals["store"] = store.url

    def home(self, _request: Request) -> Response:
        """All sequences."""
        return self._page("home.html", pages.home(self._shelf))

    def sequence(self, request: Request) -> Response:
        """One sequence."""
        name = request.path_params["name"]
        return self._page("sequence.html", pages.sequence_page(self._shelf, name))

    def run(self, request: Request) -> Response:
        """One run of a sequence."""
        return self._page("run.html", pages.run_page(self._shelf, **request.path_params))

    def output(self, request: Request) -> Response:
        """One model, shard, row or the like."""
        return self._page("output.html", output_page(self._shelf, **request.path_params))

    def compare(self, request: Request) -> Response:
        """Two runs side by side."""
        asked = request.query_params
        return self._page("compare.html", compare_page(self._shelf, asked.get("a"), asked.get("b")))

    def report(self, request: Request) -> Response:
        """The self-contained report of a sequence, as it is stored."""
        known = self._shelf.sequence(request.path_params["name"])
        path, store = report_path(known.name, "report.html"), self._shelf.store
        if not store.exists(path):
            raise NotFound(f"{known.name} has no report yet; `gift run` writes it at its end.")
        return HTMLResponse(store.read_bytes(path), headers=FOREIGN)

    def accuracy(self, request: Request) -> Response:
        """Accuracy over time."""
        drawn = pages.accuracy_svg(self._shelf, request.path_params["name"])
        return Response(drawn, media_type="image/svg+xml", headers=FOREIGN)

    def figure(self, request: Request) -> Response:
        """Loss curves, drift."""
        stage, key, kind = (request.path_params[name] for name in ("stage", "key", "kind"))
        drawn = figure(self._shelf, stage, key, kind)
        return Response(drawn, media_type="image/svg+xml", headers=FOREIGN)

    def sheet(self, request: Request) -> Response:
        """Replay pairs as one picture."""
        return Response(sheet(self._shelf, request.path_params["key"]), media_type="image/png")

    def not_found(self, _request: Request, error: Exception) -> Response:
        """Say that there is no such page; 404."""
        words = str(error) if isinstance(error, NotFound) else "There is no such page."
        return self._wrong("Not found", words, 404)

    def refused(self, _request: Request, error: Exception) -> Response:
        """Say what cannot be read now; 404 for a bad name, else 503."""
        if isinstance(error, SettingsError):
            return self._wrong("Not found", str(error), 404)
        return self._wrong("This cannot be shown", str(error), 503)

    def failed(self, _request: Request, _error: Exception) -> Response:
        """Say that it is a fault of ours; 500, the server logs the traceback."""
        words = "This page has a fault of its own; the log of `gift dashboard` says more."
        return self._wrong("A fault", words, 500)

    def _wrong(self, title: str, sentence: str, status: int) -> Response:
        return self._page("error.html", {"title": title, "sentence": sentence}, status)

    def _page(self, template: str, content: dict[str, Any], status: int = 200) -> Response:
        return HTMLResponse(self._templates.get_template(template).render(content), status)


def dashboard(store: ObjectStore, allowed_hosts: tuple[str, ...] = LOOPBACK) -> Guard:
    """The application over a store; it answers only those who name one of `allowed_hosts`.

    A page elsewhere that makes its own name point at this machine is not answered therefore.
    """
    views = Pages(store)
    output = "/sequences/{name}/outputs/{stage}/{key}"

    def get(path: str, view: Callable[[Request], Response]) -> Route:
        return Route(path, view, methods=["GET"])

    app = Starlette(
        routes=[
            get("/", views.home),
            get("/compare", views.compare),
            get("/sequences/{name}", views.sequence),
            get("/sequences/{name}/report", views.report),
            get("/sequences/{name}/accuracy.svg", views.accuracy),
            get("/sequences/{name}/runs/{key}", views.run),
            get(output, views.output),
            get(output + "/sheet.png", views.sheet),
            get(output + "/{kind}.svg", views.figure),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts))],
        exception_handlers={
            404: views.not_found,
            NotFound: views.not_found,
            GiftError: views.refused,
            Exception: views.failed,
        },
    )
    return Guard(app)  # around everything, so that the page of a fault has the headers too
