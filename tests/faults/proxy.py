"""A bad line to a good server: an HTTP proxy on 127.0.0.1 that breaks the requests it is told to.

The client signs for the proxy's address and the proxy passes the same Host header on, so that the
server finds the signature right.
"""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Kind = Literal["delay", "refuse", "cut", "lose", "silence"]


@dataclass
class Fault:
    """What becomes of the next `times` requests with this method whose path holds `path`.

    delay     passed on after `seconds`
    refuse    answered with `status`, the server never hears of it
    cut       the answer's body ends in the middle
    lose      the server acts, its answer never comes
    silence   nobody answers, until the client hangs up
    """

    kind: Kind
    method: str
    path: str
    times: int = 1
    seconds: float = 0.0
    status: int = 503
    num_hit: int = 0


class Proxy:
    """The proxy's address, the faults that wait for their request, and what was asked."""

    def __init__(self, upstream: str) -> None:
        self.faults: list[Fault] = []
        self.asked: list[tuple[str, str]] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._upstream = urlsplit(upstream)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def add(self, kind: Kind, method: str, path: str, **more: float) -> Fault:
        """Let a fault wait for its requests."""
        fault = Fault(kind, method, path, **more)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    def take(self, method: str, path: str) -> Fault | None:
        """The fault of a request, counted."""
        with self._lock:
            self.asked.append((method, path))
            for fault in self.faults:
                met = fault.method == method and fault.path in path
                if met and fault.num_hit < fault.times:
                    fault.num_hit += 1
                    return fault
        return None

    def forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Ask the server."""
        line = http.client.HTTPConnection(str(self._upstream.netloc), timeout=60)
        try:
            line.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                line.putheader(name, value)
            line.endheaders(body or None)
            answer = line.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            line.close()


@contextmanager
def proxy_to(upstream: str) -> Iterator[Proxy]:
    """Run a proxy before a server; it is stopped for sure."""
    proxy = Proxy(upstream)
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join()


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.take(self.command, self.path)
            kind = fault.kind if fault else None
            if fault and kind == "delay":
                time.sleep(fault.seconds)
            if kind == "silence":
                proxy.closing.wait(60)
                return self.hang_up()
            if fault and kind == "refuse":
                code = "SlowDown" if fault.status == 503 else "InternalError"
                text = f"<Error><Code>{code}</Code><Message>by the test</Message></Error>"
                return self.tell(fault.status, [("Content-Type", "application/xml")], text.encode())
            try:
                status, headers, content = proxy.forward(
                    self.command, self.path, dict(self.headers), body
                )
            except OSError:
                return self.hang_up()
            if kind == "lose":
                return self.hang_up()
            return self.tell(status, headers, content, cut=kind == "cut")

        def tell(
            self, status: int, headers: list[tuple[str, str]], content: bytes, cut: bool = False
        ) -> None:
            self.send_response_only(status)
            told = {name.lower() for name, _ in headers}
            for name, value in headers:
                if name.lower() not in {"transfer-encoding", "connection"}:
                    self.send_header(name, value)
            if "content-length" not in told:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self.hang_up()

        def hang_up(self) -> None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            pass

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

    return Handler
