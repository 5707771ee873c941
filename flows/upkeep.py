"""Scheduled upkeep of a store: hash everything anew, and sweep what nothing needs."""

from functools import partial
from typing import Annotated

from prefect import flow, get_run_logger
from pydantic import Field

from flows.storage import sequence_store
from gift_core.errors import StoreError, one_line
from gift_core.settings import Settings
from tasks.notices import swept_markdown, verified_markdown
from tasks.publishing import publish_markdown
from tasks.sequence import StoreSettings
from tasks.store.sweep import find_unreferenced, sweep
from tasks.store.verify import verify_store

Store = Annotated[StoreSettings, Field(description="The store to look after")]
Delete = Annotated[bool, Field(description="Remove what is listed; else it is only listed")]
OlderThan = Annotated[
    float, Field(ge=0, description="Days: what was written or used within this time is spared")
]


class Swept(Settings):
    """What a sweep listed and removed."""

    num_listed: int
    num_removed: int
    num_bytes: int


class Verified(Settings):
    """How much was hashed anew and found as it was stored."""

    num_outputs: int
    num_files: int
    num_bytes: int


@flow(name="gift", flow_run_name="verify", persist_result=False)
def verify(store: Store) -> Verified:
    """Hash everything anew that heads, arrivals, reports and manifests reach.

    The findings are an artifact. Raises StoreError, in one sentence, when anything is damaged.
    """
    objects = sequence_store(store)
    found = verify_store(objects)
    publish_markdown(
        "store-verified", f"Verification of {objects.url}", partial(verified_markdown, found)
    )
    if found.damages:
        first = found.damages[0]
        raise StoreError(
            f"{objects.url}: {len(found.damages)} damaged, first {first.path}: {first.problem}; "
            "the run's artifact lists all, docs/reliability.md says what heals"
        )
    return Verified(
        num_outputs=found.num_outputs, num_files=found.num_files, num_bytes=found.num_bytes
    )


@flow(name="gift", flow_run_name="gc", persist_result=False)
def gc(store: Store, delete: Delete = False, older_than: OlderThan = 7.0) -> Swept:
    """List what nothing reaches; remove it where `delete` says so, never what is in use.

    Raises StoreError when something damaged hides what is reached, or a run began meanwhile.
    """
    objects = sequence_store(store)
    found = find_unreferenced(objects, older_than * 86_400)
    num_removed = sweep(objects, found) if delete else 0
    words = swept_markdown(found, num_removed)
    publish_markdown("store-swept", f"What nothing needs in {objects.url}", lambda: words)
    get_run_logger().info("%s: %s", objects.url, one_line(words.splitlines()[0]))
    return Swept(num_listed=found.num_objects, num_removed=num_removed, num_bytes=found.num_bytes)
