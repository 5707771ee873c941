"""Put the pipeline up on a Prefect server: pools, deployments, automations. May be repeated.

    python -m deployments.put_up

A pool that is there stays as it is (a team's may be of another type); deployments and automations
become what the checkout says, but an automation that somebody paused stays paused.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound

HOME = Path(__file__).resolve().parent.parent
DEPLOYMENTS = HOME / "prefect.yaml"
AUTOMATIONS = HOME / "deployments" / "automations.yaml"


def pools() -> tuple[str, ...]:
    """The work pools that prefect.yaml names, sorted."""
    deployments = _read(DEPLOYMENTS)["deployments"]
    return tuple(sorted({deployment["work_pool"]["name"] for deployment in deployments}))


def automations() -> tuple[AutomationCore, ...]:
    """The automations of the checkout; pydantic's ValidationError when one is none of Prefect's."""
    return tuple(AutomationCore.model_validate(each) for each in _read(AUTOMATIONS)["automations"])


def main() -> None:
    """Make what is missing on the server of PREFECT_API_URL and say so; exit code 1: not all."""
    with get_client(sync_client=True) as client:
        for name in pools():
            _make_pool(client, name)
        _prefect("--no-prompt", "deploy", "--all")
        for automation in automations():
            _make_automation(client, automation)


def _make_pool(client: SyncPrefectClient, name: str) -> None:
    try:
        pool = client.read_work_pool(name)
        print(f"pool {name} is there, of type {pool.type}")
    except ObjectNotFound:
        _prefect("work-pool", "create", name, "--type", "process")


def _make_automation(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        print(f"automation {wanted.name} made")
        return
    for automation in found:
        kept = wanted.model_copy(update={"enabled": automation.enabled})
        client.update_automation(automation.id, kept)
    print(f"automation {wanted.name} brought up to date")


def _prefect(*arguments: str) -> None:
    """Run the command, which knows pools' templates and prefect.yaml; what it says is seen."""
    # GIFT_HOME is where the checkout lies on the workers: here, if nothing else is said.
    environment = {"GIFT_HOME": str(HOME)} | os.environ
    command = [sys.executable, "-m", "prefect", *arguments]
    if subprocess.run(command, cwd=HOME, env=environment).returncode:  # noqa: S603 - our own
        sys.exit(1)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


if __name__ == "__main__":
    main()
