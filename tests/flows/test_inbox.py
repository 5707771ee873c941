"""A look into an inbox, a folder or a bucket: what is whole arrives, what is broken does not."""

import secrets
from pathlib import Path

import pytest
import yaml

from deployments.seaweed import Endpoint
from flows.inbox import inbox
from flows.storage import sequence_store
from tasks.store.address import open_store
from tasks.store.arrivals import arrivals_of
from tests.worlds import tiny_sequence, write_squares

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("prefect_api")]


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_look_takes_in_what_is_whole_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path / "inbox"
    for name in ("birds", "torn"):
        write_squares(folder / name, ("blue", "red"), 8, 4)
        (folder / name / "task.yaml").write_text("class_names: [blue square, red square]")
    (folder / "torn" / "test.parquet").write_bytes(b"torn")
    place = str(folder)
    if kind == "s3":
        endpoint: Endpoint = request.getfixturevalue("endpoint")
        place = f"s3://{endpoint.bucket}/{secrets.token_hex(4)}"
        for path in open_store(str(folder)).list():
            open_store(place).upload(path, folder / path)
    sequence = tiny_sequence(tmp_path, str(tmp_path / "store"))
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(sequence.model_dump(mode="json")))

    looked = inbox(str(file), place, mirror=str(tmp_path / "mirror"))
    assert (looked.arrived, looked.quarantined) == (("birds",), ("torn",))
    (arrival,) = arrivals_of(sequence_store(sequence.store), "tiny").tasks
    assert (arrival.state, arrival.announced) == ("arrived", True)
    data = Path(arrival.settings["data"]["path"])
    assert (data / "train.parquet").is_file(), "training reads it there"
    assert (data.parent == tmp_path / "mirror") == (kind == "s3")
    reason = open_store(place).read_bytes(".quarantine/torn/reason.txt")
    assert b"not a readable Parquet file" in reason
    again = inbox(str(file), place, mirror=str(tmp_path / "mirror"))
    assert (again.arrived, again.quarantined) == ((), ())
