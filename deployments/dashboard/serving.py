"""Serving the page: one process, one address, until it is interrupted."""

import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from deployments.dashboard.app import LOOPBACK, dashboard
from gift_core.errors import SettingsError
from tasks.store.objects import ObjectStore


def serve(store: ObjectStore, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Serve the page over a store until SIGINT or SIGTERM; port 0 takes one that is free.

    Raises SettingsError when the address cannot be had.
    """
    with bound(host, port) as listener:
        where = f"http://{host}:{listener.getsockname()[1]}"
        tell(f"gift dashboard: {where} shows {store.url}, read-only; Ctrl-C ends it")
        open_to_all = host not in LOOPBACK
        if open_to_all:
            tell(
                f"whoever reaches {host} can read it; put it behind a server that asks who they are"
            )
        config = uvicorn.Config(
            dashboard(store.impatient(), ("*",) if open_to_all else LOOPBACK),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
        with suppress(KeyboardInterrupt):  # uvicorn raises it again once it has ended
            uvicorn.Server(config).run(sockets=[listener])


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; SettingsError when there is no such address or it is taken."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), port), family=family)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(
            f"cannot listen on {host}:{port} ({reason}); give another --host or --port"
        ) from None
