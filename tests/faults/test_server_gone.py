"""Object storage killed in the middle of a sequence: back in time, or gone for good."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.seaweed import Seaweed
from flows.continual_sequence import continual_sequence
from gift_core.errors import StoreError
from tasks.store import s3, s3_patience
from tasks.store.address import open_store
from tasks.store.objects import ObjectStore
from tests.faults.sequences import Undisturbed, assert_as_undisturbed, moved

pytestmark = pytest.mark.timeout(400)
AWAY_SECONDS = 1.5
"""With the time that it takes to start, three to six seconds: less than the pauses of a request."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Seaweed]:
    seaweed = Seaweed(tmp_path / "seaweed")
    try:
        seaweed.start()
        with seaweed.endpoint.environment():
            yield seaweed
    finally:
        seaweed.stop()


class Assassin(threading.Thread):
    """Kills the server once objects below `prefix` are seen, and starts it again if `back`."""

    def __init__(
        self, server: Seaweed, store: ObjectStore, prefixes: list[str], back: bool
    ) -> None:
        super().__init__(daemon=True)
        self.server, self.store, self.prefixes, self.back = server, store, prefixes, back
        self.num_kills = 0

    def run(self) -> None:
        for prefix in self.prefixes:
            while not self.store.list(prefix):
                time.sleep(0.02)
            self.server.kill()
            self.num_kills += 1
            if self.back:
                time.sleep(AWAY_SECONDS)
                self.server.start()


def test_a_restart_in_the_middle_is_outlived(server: Seaweed, undisturbed: Undisturbed) -> None:
    """Killed while shards, a checkpoint and a row are written."""
    url = f"s3://{server.endpoint.bucket}/restarted"
    prefixes = ["outputs/synthesize-shard", "checkpoints/finetune", "outputs/estimate-fisher"]
    assassin = Assassin(server, open_store(url), prefixes, back=True)
    assassin.start()
    continual_sequence(sequence=moved(undisturbed.sequence, url))
    assassin.join(60)
    assert assassin.num_kills == len(prefixes)
    assert_as_undisturbed(open_store(url), undisturbed.manifests)


def test_gone_for_good_is_one_sentence_and_a_later_run_goes_on(
    server: Seaweed, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience is cut to four tries here: it is the same client, waiting seven seconds, not 25."""
    retries = s3_patience.PATIENT["retries"] | {"total_max_attempts": 4}
    monkeypatch.setattr(s3, "PATIENT", s3_patience.PATIENT | {"retries": retries})
    url = f"s3://{server.endpoint.bucket}/gone"
    assassin = Assassin(server, open_store(url), ["checkpoints/finetune"], back=False)
    assassin.start()
    with pytest.raises(StoreError) as caught:
        continual_sequence(sequence=moved(undisturbed.sequence, url))
    died = time.monotonic()
    assassin.join(60)
    words = str(caught.value)
    assert words.startswith("cannot ")
    assert f"{url}/" in words
    assert words.endswith("endpoint is up and its address and region are right, then run again")
    assert "\n" not in words
    assert time.monotonic() - died < 60
    server.start()
    result = continual_sequence(sequence=moved(undisturbed.sequence, url))
    assert result.num_reused >= 3, "theta_0, its row and the pairs stand"
    assert_as_undisturbed(open_store(url), undisturbed.manifests)
