"""Stage estimate-fisher: what the replay pairs say matters in a new model, and what moved."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import prefect
import torch
from prefect.cache_policies import NO_CACHE

from gift_core.fisher import block_drift, estimate_fisher
from gift_core.objective import Objective
from gift_core.replay import ReplayBatch
from tasks.manifests import BlockDrift, FisherManifest, ModelManifest, PairsManifest
from tasks.models.encoders import Encoder, best_device
from tasks.progress import Progress
from tasks.replay import open_frozen, open_model, replay_set
from tasks.sequence import FisherSettings
from tasks.store.checkpoints import save_tensors
from tasks.store.objects import ObjectStore
from tasks.store.outputs import Produced, plan_output, run_output

FISHER = "fisher.safetensors"


@prefect.task(
    name="estimate-fisher",
    task_run_name="estimate-fisher-{model.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def fisher_of_model(
    store: ObjectStore,
    model: ModelManifest,
    parent: ModelManifest,
    pairs: PairsManifest,
    objective: Objective,
    settings: FisherSettings,
    cache: str,
) -> Produced[FisherManifest]:
    """Estimate the Fisher diagonal of a new model on the replay pairs (docs/method.md step 5).

    With it goes the drift of each block against its parent, plain and weighted by Fisher. Cropped
    images are kept in the folder `cache`.
    """
    manifest = planned_fisher(model, parent, pairs, objective, settings)

    def make(directory: Path) -> FisherManifest:
        teacher = open_frozen(store, parent, best_device())
        with TemporaryDirectory(prefix="gift-") as folder:
            student = open_model(store, model, Path(folder), best_device())
        student.model.eval()
        replay = replay_set(store, pairs, teacher, Path(cache))
        with Progress(f"Fisher diagonal of {model.name}", pairs.num_pairs, "pairs") as progress:

            def counted() -> Iterator[ReplayBatch]:
                for batch in replay.batches_once(student, settings.batch_size):
                    yield batch
                    progress.advance(len(batch.prompt_ids_B))

            fisher = estimate_fisher(student.model, counted(), objective)
        save_tensors(directory / FISHER, fisher, {"model": model.digest})
        drift = block_drift(_parameters(teacher), _parameters(student), fisher)
        return manifest.model_copy(
            update={"drift": tuple(BlockDrift(**asdict(block)) for block in drift)}
        )

    return run_output(store, manifest, make, device=str(best_device()))


def planned_fisher(
    model: ModelManifest,
    parent: ModelManifest,
    pairs: PairsManifest,
    objective: Objective,
    settings: FisherSettings,
) -> FisherManifest:
    """The manifest of a Fisher diagonal before it is estimated: its key is settled."""
    return plan_output(
        FisherManifest,
        name=model.name,
        inputs={"model": model.digest, "parent": parent.digest, "pairs": pairs.digest},
        settings={
            "fisher": settings.model_dump(mode="json"),
            "objective": objective.model_dump(mode="json"),
        },
        seed=0,
        model=model.digest,
        pairs=pairs.digest,
        drift=(),
    )


def _parameters(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in encoder.model.named_parameters()}
