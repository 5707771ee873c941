"""The compose file and the image, as far as they can be looked at without starting a container."""

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.seaweed import command as seaweed_command
from tests.worlds import ROOT

COMPOSE = ROOT / "deployments" / "compose.yaml"
EXAMPLE = ROOT / "deployments" / "compose.env.example"
DOCKERFILE = ROOT / "deployments" / "images" / "Dockerfile"
SECRETS = ("POSTGRES_PASSWORD", "PREFECT_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY")
GIVEN = {name: f"given{number}" for number, name in enumerate((*SECRETS, "GIFT_DATA"))}

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")


def filled_in(text: str, given: dict[str, str]) -> dict[str, Any]:
    """The file with its variables, by compose's rules; KeyError with the file's sentence."""

    def value(match: re.Match[str]) -> str:
        found = given.get(match["name"])
        if found:
            return found
        if match["kind"] == "-":
            return str(match["rest"])
        raise KeyError(match["rest"])

    content: dict[str, Any] = yaml.safe_load(VARIABLE.sub(value, text))
    return content


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return filled_in(COMPOSE.read_text(), GIVEN)


def schema_errors(path: Path) -> str:
    """What the compose specification's own schema says of a file; nothing when it is well."""
    asked = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*asked, str(path)], capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def has_compose() -> bool:
    """Whether this machine has Docker with compose: then the file is shown to it as well."""
    docker = shutil.which("docker")
    return bool(docker) and not subprocess.run([docker, "compose", "version"]).returncode


def test_the_file_follows_the_compose_specification(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    assert schema_errors(COMPOSE) == ""
    broken = copy.deepcopy(compose)
    broken["services"]["server"]["helthcheck"] = {}
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(broken))
    assert "helthcheck" in schema_errors(tmp_path / "broken.yaml")
    docker = shutil.which("docker")
    if (
        docker
        and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0
    ):
        environment = tmp_path / "compose.env"
        environment.write_text("".join(f"{name}={value}\n" for name, value in GIVEN.items()))
        asked = ["compose", "--env-file", str(environment), "--file", str(COMPOSE), "config"]
        subprocess.run([docker, *asked], check=True, timeout=60)


@pytest.mark.parametrize("name", GIVEN)
def test_without_a_secret_nothing_starts_and_a_sentence_says_which(name: str) -> None:
    with pytest.raises(KeyError, match=f"{name} is empty"):
        filled_in(COMPOSE.read_text(), GIVEN | {name: ""})


def test_the_example_names_every_variable_and_gives_no_secret() -> None:
    used = {match["name"] for match in VARIABLE.finditer(COMPOSE.read_text())}
    lines = re.findall(r"^#?([A-Z0-9_]+)=(.*)$", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert {name for name, _ in lines} == used
    assert {name for name, value in lines if not value} == set(GIVEN)


def test_ports_are_published_on_this_machine_only_and_images_are_pinned(
    compose: dict[str, Any],
) -> None:
    for name, service in compose["services"].items():
        assert re.search(r":\d+\.\d+", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    assert {"server", "storage"} == {
        name for name, service in compose["services"].items() if "ports" in service
    }


def test_what_stays_up_is_watched_and_restarted(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name == "put-up":
            assert service["restart"] == "no"
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] == "CMD", name
    named = {
        volume.split(":")[0]
        for s in compose["services"].values()
        for volume in s.get("volumes", [])
    }
    assert set(compose["volumes"]) == named - {GIVEN["GIFT_DATA"]}


def test_a_worker_has_shared_memory_time_to_save_and_the_gpu(compose: dict[str, Any]) -> None:
    cpu, gpu = (compose["services"][f"{pool}-worker"] for pool in ("cpu", "gpu"))
    for worker in (cpu, gpu):
        assert worker["shm_size"] == "2gb"
        assert int(worker["stop_grace_period"].removesuffix("s")) > 45
        assert worker["environment"]["AWS_SECRET_ACCESS_KEY"] == GIVEN["S3_SECRET_KEY"]
    assert "deploy" not in cpu
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "1", "capabilities": ["gpu"]}
    assert gpu["command"][-3:-1] == ["--limit", "1"]


def test_commands_are_ones_that_the_programs_know(compose: dict[str, Any]) -> None:
    for name in ("server", "put-up", "cpu-worker", "gpu-worker"):
        program, *arguments = compose["services"][name]["command"]
        if program == "python":
            assert arguments == ["-m", "deployments.put_up"]
            continue
        words = [word for word in arguments if not word.startswith("-")][:2]
        shown = subprocess.run(
            [sys.executable, "-m", program, *words, "--help"], capture_output=True, text=True
        ).stdout
        assert all(word in shown for word in arguments if word.startswith("--")), name


def test_the_storage_is_started_as_the_tests_start_it(compose: dict[str, Any]) -> None:
    """All that is set but the folder, addresses and the ports in use."""
    places = re.compile(r"-(dir|ip|ip\.bind)=|.*port(\.grpc)?=[1-9]")

    def settings(words: list[str]) -> set[str]:
        return {word for word in words if word.startswith("-") and not places.match(word)}

    by_hand = seaweed_command(Path("/data"), "gift", list(range(1, 9)))
    in_container = compose["services"]["storage"]["command"]
    assert in_container[0] == by_hand[1] == "mini"
    assert settings(in_container) == settings(by_hand)


def test_the_image_passes_its_linter_and_copies_what_is_there() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, "--format", "json", DOCKERFILE], capture_output=True, text=True)
    assert json.loads(done.stdout) == []
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        word
        for line in re.findall(r"^COPY (.*)$", DOCKERFILE.read_text(), flags=re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert "*" in ignored


def test_the_image_tells_nobody_and_runs_as_nobody_special() -> None:
    text = DOCKERFILE.read_text()
    for setting in ("PREFECT_SERVER_ANALYTICS_ENABLED=false", "DO_NOT_TRACK=1", "TELEMETRY=1"):
        assert setting in text
    assert text.index("USER ${UID}") < text.index("ENTRYPOINT")
    extras = re.search(r"^ARG EXTRAS=(.*)$", text, flags=re.MULTILINE)
    known = (ROOT / "pyproject.toml").read_text()
    assert extras
    assert all(f"\n{name} = [" in known for name in extras[1].split(","))
