"""What Kubernetes is given: the job that Prefect makes of the template, and the worker's files."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration, KubernetesWorkerVariables

from deployments.put_up import DEPLOYMENTS, pools
from tests.worlds import ROOT

FOLDER = ROOT / "deployments" / "kubernetes"
TEMPLATE = json.loads((FOLDER / "gpu-job-template.json").read_text())
WORKER = tuple(yaml.safe_load_all((FOLDER / "worker.yaml").read_text()))
RELEASES = ("1.30", "1.37")
"""Of Kubernetes: old clusters and the newest that the validator knows."""
MISPLACED = ("parallelism", "completions")
"""Prefect wants these two in the pod's spec, where Kubernetes ignores them with a warning."""


def job(**values: object) -> dict[str, Any]:
    """The job of a run, by the code of Prefect's worker; `values` are a pool's job variables."""
    nobody = PrefectClient("http://127.0.0.1:9/api")  # a template without blocks asks no server
    made = asyncio.run(
        KubernetesWorkerJobConfiguration.from_template_and_values(TEMPLATE, values, client=nobody)
    )
    made.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="finetune-shoes"))
    return dict(made.job_manifest)


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return found


def check(manifest: dict[str, Any], release: str) -> None:
    """Kubernetes' own schema, unknown keys refused; raises ValidationError."""
    manifest = json.loads(json.dumps(manifest))
    if manifest["kind"] == "Job":
        for key in MISPLACED:
            assert pod(manifest).pop(key) == 1
    kubernetes_validate.validate(manifest, release, strict=True)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    "values",
    [
        {},
        {
            "gpu_limit": 4,
            "shm_size": "16Gi",
            "data_volume": {"name": "data", "persistentVolumeClaim": {"claimName": "pictures"}},
            "node_selector": {"nvidia.com/gpu.product": "NVIDIA-H100"},
            "tolerations": [],
            "env": {"OMP_NUM_THREADS": "4"},
            "command": "python -m prefect.flow_engine",
        },
    ],
    ids=["as it comes", "everything set"],
)
def test_the_job_is_one_that_kubernetes_takes(values: dict[str, object], release: str) -> None:
    check(job(**values), release)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("manifest", WORKER, ids=lambda manifest: manifest["kind"])
def test_the_workers_files_are_ones_that_kubernetes_takes(
    manifest: dict[str, Any], release: str
) -> None:
    check(manifest, release)


def test_the_validator_refuses_what_is_misspelt() -> None:
    manifest = job()
    pod(manifest)["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check(manifest, RELEASES[-1])


def test_a_pod_has_its_gpus_shared_memory_secret_and_time_to_save() -> None:
    spec = pod(job(gpu_limit=2, shm_size="8Gi"))
    (container,) = spec["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert container["envFrom"] == [{"secretRef": {"name": "gift"}}]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    shared = volumes[mounts["/dev/shm"]]  # noqa: S108 - of the pod
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert set(mounts.values()) == set(volumes)
    assert spec["terminationGracePeriodSeconds"] > 45
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec[
        "tolerations"
    ]


def test_a_drained_node_sends_the_run_back_to_the_pool() -> None:
    (container,) = pod(job())["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environment["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
    assert not {name for name in environment if "AUTH" in name or name.startswith("AWS")}


def test_the_template_lacks_nothing_that_prefects_own_has() -> None:
    own = set(KubernetesWorkerVariables.model_fields)
    given = set(TEMPLATE["variables"]["properties"])
    # Retries are Prefect's (a pod that is evicted), and a CPU limit slows without saving anything.
    assert own - given == {"backoff_limit", "cpu_limit"}
    used = json.dumps(TEMPLATE["job_configuration"])
    assert [name for name in given if f"{{{{ {name} }}}}" not in used] == []


def test_what_prefect_yaml_sets_for_a_pool_is_a_variable_of_the_template() -> None:
    for deployment in yaml.safe_load(DEPLOYMENTS.read_text())["deployments"]:
        assert deployment["work_pool"]["name"] in pools()
        variables = deployment["work_pool"].get("job_variables", {})
        assert variables.keys() <= TEMPLATE["variables"]["properties"].keys()
