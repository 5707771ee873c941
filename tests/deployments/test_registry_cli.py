"""The commands over a store, on a folder and on object storage, with what a run leaves."""

import secrets
import shutil
from pathlib import Path

import open_clip
import pytest
from prefect.filesystems import RemoteFileSystem

from deployments.registry_cli import registry
from deployments.seaweed import Endpoint
from tasks.manifests import ModelManifest
from tasks.store.address import open_store
from tasks.store.heads import head_of, history_of
from tasks.store.inventory import candidate_of, take_inventory
from tasks.store.objects import FolderStore, ObjectStore
from tasks.store.outputs import plan_output, run_output
from tasks.store.registry import promote
from tests.deployments.conftest import Gift
from tests.deployments.made_up_stores import reported
from tests.tasks.conftest import made_up_run
from tests.worlds import CLIP


def test_status_log_promote_and_rollback(gift: Gift, store: ObjectStore) -> None:
    store.check()  # the folder is there from then on
    assert "no sequence" in gift("status", "--store", store.url)[1]
    run = reported(store)
    first, second = (model.key[:16] for model in run.models[1:])
    code, out, _ = gift("status", "--store", store.url)
    assert (code, out.startswith("little: 2 promoted, photos, 20")) == (0, True)
    assert out.rstrip().endswith(f"finetune/{second}")
    code, out, _ = gift("rollback", "little", "--reason", "bad in the field", "--store", store.url)
    assert (code, "3 rolled-back to 1, digits" in out) == (0, True)
    named = f"finetune/{second}"
    code, out, _ = gift("promote", "little", named, "--reason", "fixed", "--store", store.url)
    assert (code, "4 promoted, photos" in out) == (0, True)
    again = gift("promote", "little", named, "--reason", "fixed", "--store", store.url)
    assert (again[0], "nothing was added" in again[1]) == (0, True)
    code, out, _ = gift("log", "little", "--store", store.url)
    heads = [line for line in out.splitlines() if not line.startswith("    ")]
    assert [line.split(",")[0] for line in heads] == [
        "4 promoted", "3 rolled-back to 1", "2 promoted", "1 promoted",
    ]  # fmt: skip
    assert ": bad in the field" in out
    assert first in heads[1]
    code, out, _ = gift("rollback", "little", "--to", "1", "--reason", "x", "--store", store.url)
    assert (code, "5 rolled-back to 1" in out) == (0, True)
    head = head_of(store, "little")
    assert head is not None
    assert head.lineage == history_of(store, "little")[-1].lineage


def test_a_promotion_by_hand_knows_the_whole_lineage(store: ObjectStore) -> None:
    run = reported(store)
    head = head_of(store, "little")
    assert head is not None
    made = (*run.models, *run.pairs, *run.fishers, *run.scores)
    assert head.lineage == {f"{each.stage}/{each.key}": each.digest for each in made}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("log", "nobody"), "nobody has no head in"),
        (("log", "../up"), "no name of a sequence"),
        (("rollback", "nobody", "--reason", "x"), "nothing to roll back"),
        (("rollback", "little", "--to", "9", "--reason", "x"), "no entry 9"),
        (("rollback", "little", "--reason", " "), "--reason: the reason has 0 characters"),
        (("promote", "little", "finetune/zz", "--reason", "x"), "names no model"),
        (("promote", "little", "finetune/", "--reason", "x"), "names no model"),
        (("promote", "little", "pretrained/", "--reason", "x"), "names no model"),
        (("promote", "typo", "finetune/", "--reason", "x"), "sequences: little"),
        (("export", "nobody", "x"), "sequences with one: little"),
        (("gc", "--older-than", "week"), "such as 7d"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    gift: Gift,
    folder: FolderStore,
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    reported(folder)
    before = folder.list()
    code, _, error = gift(*arguments, "--store", folder.url)
    assert (code, len(error.strip().splitlines())) == (2, 1)
    assert sentence in error
    assert folder.list() == before


@pytest.mark.parametrize(
    "command",
    [
        ("status",), ("log", "little"), ("verify",), ("gc",), ("report", "little"), ("dashboard",),
        ("export", "little", "there"), ("rollback", "little", "--reason", "x"),
        ("promote", "little", "finetune/00", "--reason", "x"), ("pairs", "show", "little/digits"),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_there_does_not_look_whole(
    gift: Gift, tmp_path: Path, command: tuple[str, ...]
) -> None:
    code, out, error = gift(*command, "--store", str(tmp_path / "stoer"))
    assert (code, out) == (2, "")
    assert f"store {tmp_path / 'stoer'}: there is no such folder; give --store" in error
    assert not (tmp_path / "stoer").exists()


def test_the_credentials_of_a_block_open_the_store(
    gift: Gift, prefect_api: None, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"s3://{endpoint.bucket}/{secrets.token_hex(4)}")
    reported(store)
    options = {"key": endpoint.key, "secret": endpoint.secret, "endpoint_url": endpoint.url}
    RemoteFileSystem(basepath=store.url, settings=options).save(
        "registry", overwrite=True, _sync=True
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    place = ("--store", store.url, "--block", "registry")
    for command in (("status",), ("log", "little"), ("verify",), ("gc",), ("report", "little")):
        code, out, error = gift(*command, *place)
        assert (code, error) == (0, "")
        assert out
    code, out, _ = gift("rollback", "little", "--reason", "bad", *place)
    assert (code, "3 rolled-back to 1" in out) == (0, True)
    code, _, error = gift("status", "--store", store.url, "--block", "nobody")
    assert (code, "no remote-file-system block named 'nobody'" in error) == (2, True)


def test_the_head_is_exported_verified_and_opens(
    gift: Gift,
    store: ObjectStore,
    tmp_path: Path,
) -> None:
    manifest = plan_output(
        ModelManifest, stage="finetune", name="warm", settings={}, architecture="a",
        parent=None, task="warm", num_steps=1, inputs={},
    )  # fmt: skip

    def make(directory: Path) -> None:
        shutil.copytree(CLIP, directory, dirs_exist_ok=True)

    made = run_output(store, manifest, make).manifest
    candidate = candidate_of(take_inventory(store), f"finetune/{made.key}")
    promote(store, "tiny", candidate, reason="", actor="test")
    folder = tmp_path / "exported" / "model"
    code, out, _ = gift("export", "tiny", str(folder), "--store", store.url)
    assert (code, f"local-dir:{folder}" in out) == (0, True)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    assert sum(parameter.numel() for parameter in model.parameters()) > 0
    code, _, error = gift("export", "tiny", str(folder), "--store", store.url)
    assert (code, "is not an empty folder" in error) == (2, True)
    other = ("export", "tiny", str(folder.parent / "hf"), "--format", "transformers")
    code, out, error = gift(*other, "--store", store.url)
    assert (code, "CLIPModel.from_pretrained" in out, error) == (0, True, "")
    assert (folder.parent / "hf" / "processor_config.json").is_file()
    weights = made.file("open_clip_model.safetensors").path
    data = bytearray(store.read_bytes(weights))
    data[-1] ^= 1
    store.replace_bytes(weights, bytes(data))
    code, _, error = gift("export", "tiny", str(tmp_path / "other"), "--store", store.url)
    assert (code, "was altered" in error) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "store") == ["exported"]


def test_text_from_a_store_cannot_drive_the_terminal(gift: Gift, folder: FolderStore) -> None:
    run = made_up_run(folder, "little", ("digits",), "finetune")
    candidate = candidate_of(take_inventory(folder), f"finetune/{run.models[1].key}")
    promote(folder, "little", candidate, reason="\x1b[2Jgone", actor="\x07")
    assert "\x1b" not in gift("log", "little", "--store", folder.url)[1]


def test_the_commands_are_documented() -> None:
    assert all(
        command.callback and command.callback.__doc__ for command in registry.registered_commands
    )
