"""A model hub on 127.0.0.1 that serves folders, as far as huggingface_hub asks one for a model."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@contextmanager
def running_hub(folder: Path) -> Iterator[str]:
    """Serve each FOLDER/ORG/REPO as a model, one commit each; the address for HF_ENDPOINT."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, folder))
    thread = threading.Thread(target=server.serve_forever, name="hub")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Hub(BaseHTTPRequestHandler):
    """`/api/models/ORG/REPO...` tells what there is, `/ORG/REPO/resolve/REVISION/FILE` gives it."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.folder = folder
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        if path.startswith("api/models/"):
            organisation, repository, *rest = path.removeprefix("api/models/").split("/")
            files = _files(self.folder / organisation / repository)
            content = _tree(files) if rest[:1] == ["tree"] else _model(path, files)
            self._send(body, json.dumps(content).encode() if files else None, "RepoNotFound")
            return
        organisation, repository, *rest = path.split("/")
        files = _files(self.folder / organisation / repository)
        name = "/".join(rest[2:])  # after "resolve" and the revision
        content = files[name].read_bytes() if name in files else None
        self._send(body, content, "EntryNotFound" if files else "RepoNotFound")

    def _send(self, body: bool, content: bytes | None, error: str) -> None:
        self.send_response(404 if content is None else 200)
        if error == "EntryNotFound":  # the repository is there: its commit is told in any case
            self.send_header("X-Repo-Commit", COMMIT)
        if content is None:
            self.send_header("X-Error-Code", error)
        else:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body and content:
            self.wfile.write(content)


def _files(repository: Path) -> dict[str, Path]:
    found = sorted(path for path in repository.rglob("*") if path.is_file())
    return {path.relative_to(repository).as_posix(): path for path in found}


def _model(path: str, files: dict[str, Path]) -> dict[str, object]:
    name = "/".join(path.split("/")[2:4])
    siblings = [{"rfilename": file} for file in files]
    return {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "tags": []}


def _tree(files: dict[str, Path]) -> list[dict[str, object]]:
    return [
        {"type": "file", "path": name, "size": path.stat().st_size, "oid": COMMIT}
        for name, path in files.items()
    ]
