"""Stage pretrained: theta_0 taken into the store, so that a lineage begins with its bytes."""

from pathlib import Path

import prefect
from prefect.cache_policies import NO_CACHE

from tasks.manifests import ModelManifest
from tasks.models.encoders import export_pretrained
from tasks.models.starting_model import ModelSettings
from tasks.store.objects import ObjectStore
from tasks.store.outputs import Produced, plan_output, run_output


@prefect.task(name="pretrained", cache_policy=NO_CACHE, persist_result=False)
def take_pretrained(
    store: ObjectStore, settings: ModelSettings, identity: str
) -> Produced[ModelManifest]:
    """Keep the pretrained model in `local-dir:` form, fp32 safetensors.

    Raises SettingsError when open_clip cannot load it.
    """
    inputs = {"model": identity}
    manifest = plan_output(
        ModelManifest,
        stage="pretrained",
        name="pretrained",
        inputs=inputs,
        settings={},
        seed=0,
        architecture=identity,
        parent=None,
        task=None,
        num_steps=0,
    )

    def make(directory: Path) -> ModelManifest:
        export_pretrained(settings, directory)
        return manifest

    return run_output(store, manifest, make)
