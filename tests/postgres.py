"""PostgreSQL of the system's packages on 127.0.0.1, with a password, for a test."""

import os
import pwd
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from tests.prefect_server import free_port

PACKAGES = Path("/usr/lib/postgresql")
START_SECONDS = 60


@dataclass(frozen=True)
class Postgres:
    """Where it listens, its superuser, and the password that everybody is asked for."""

    port: int
    password: str
    user: str = "postgres"

    @property
    def environment(self) -> dict[str, str]:
        """What `psql` and its kin read, to act as the superuser."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGDATABASE": "postgres",
        }

    @property
    def url(self) -> str:
        """The address that a Prefect server is given."""
        user = f"{self.user}:{self.password}"
        return f"postgresql+asyncpg://{user}@127.0.0.1:{self.port}/postgres"


def program(name: str) -> str:
    """A program of PostgreSQL; AssertionError that says what to install when there is none."""
    beside = sorted(PACKAGES.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = str(beside[-1]) if beside else shutil.which(name)
    assert found, f"no {name}: install PostgreSQL (apt-get install postgresql)"
    return found


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A new, empty server. PostgreSQL refuses root, so root runs it as the package's own user."""
    account = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    home = Path(mkdtemp(prefix="gift-postgres-"))  # not in pytest's folder: only root may enter it
    server = Postgres(free_port(), secrets.token_hex(12))
    (home / "password").write_text(server.password)
    for path in (home, home / "password"):
        os.chown(path, account.pw_uid, account.pw_gid)
    who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    asked = {} if os.getuid() else who
    subprocess.run(
        [
            *(program("initdb"), "--pgdata", str(home / "data"), "--username", server.user),
            *("--pwfile", str(home / "password"), "--auth", "scram-sha-256", "--no-sync"),
        ],
        check=True,
        capture_output=True,
        cwd=home,
        **asked,
    )
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(program("postgres"), "-D", str(home / "data"), "-p", str(server.port)),
                *("-c", "listen_addresses=127.0.0.1", "-k", str(home), "-c", "fsync=off"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=home,
            start_new_session=True,
            **asked,
        )
    try:
        _await_ready(server, process, home / "log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)  # SIGTERM waits for clients to leave
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=20)
        shutil.rmtree(home)


def _await_ready(server: Postgres, process: subprocess.Popen[bytes], log: Path) -> None:
    ask = [program("pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={server.port}"]
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if subprocess.run(ask).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"PostgreSQL did not start:\n{log.read_text()[-2000:]}")
