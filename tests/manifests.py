"""A manifest for tests that ask nothing of a model."""

from tasks.manifests import ModelManifest, RunRecord, output_key

RECORD = RunRecord(started="2026-01-01T00:00:00+00:00", seconds=1.5, device="cpu", num_threads=1)


def planned(seed: int = 3) -> ModelManifest:
    return ModelManifest(
        stage="finetune",
        name="digits",
        key=output_key("finetune", 1, {"parent": "p"}, {"steps": 2}, seed),
        inputs={"parent": "p"},
        settings={"steps": 2},
        seed=seed,
        versions={"torch": "2"},
        architecture="tiny",
        parent=None,
        task="digits",
        num_steps=2,
    )
