"""The demo: GIFT and plain fine-tuning over the miniature's four tasks, side by side.

    python -m deployments.miniature.demo                    both methods, seed 0
    python -m deployments.miniature.demo --seeds 0 1 2      the comparison on three seeds
    python -m deployments.miniature.demo --object-storage   the same on S3, digest for digest

Reports and `summary.json` are written to .gift/demo (other seeds: .gift/demo/seed-N).
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from deployments.embedded import set_embedded_defaults, without_heartbeats

set_embedded_defaults()

from deployments.tables import metrics_table, side_by_side  # noqa: E402
from flows.continual_sequence import continual_sequence  # noqa: E402
from flows.dispatch import SequenceResult  # noqa: E402
from flows.storage import sequence_store  # noqa: E402
from gift_core.errors import GiftError  # noqa: E402
from tasks.manifests import SequenceManifest  # noqa: E402
from tasks.report import load_summary, render_report  # noqa: E402
from tasks.sequence import SequenceSettings, StoreSettings, load_sequence  # noqa: E402
from tasks.store.objects import ObjectStore  # noqa: E402

SEQUENCE = Path("deployments/sequences/miniature.yaml")
FOLDER = Path(".gift/demo")
METHODS = ("finetune", "gift")
console = Console()


def sequence_of(method: str, seed: int, store: StoreSettings | None = None) -> SequenceSettings:
    """The miniature by one method; plain fine-tuning is what GIFT is compared with."""
    suffix = f"-seed-{seed}" if seed else ""
    names = {"gift": f"miniature{suffix}", "finetune": f"miniature-finetune{suffix}"}
    overrides: dict[str, object] = {"name": names[method], "method": method, "seed": seed}
    if method == "gift":
        overrides["baseline"] = names["finetune"]
    if store is not None:
        overrides["store"] = store
    return load_sequence(SEQUENCE, **overrides)


def compare(seed: int, folder: Path, store: StoreSettings | None = None) -> list[SequenceResult]:
    """Run both methods, print both matrices, write both reports and summary.json to `folder`."""
    sequences = {method: sequence_of(method, seed, store) for method in METHODS}
    with without_heartbeats():
        results = {
            method: continual_sequence(sequence=sequence) for method, sequence in sequences.items()
        }
    objects = sequence_store(sequences["gift"].store)
    manifests = {method: result.manifest for method, result in results.items()}
    write_reports(objects, manifests, folder)
    shown = [manifests["finetune"], manifests["gift"]]
    console.print(side_by_side(shown))
    console.print(metrics_table(shown))
    for result in results.values():
        console.print(result.summary)
    console.print(f"Reports and summary.json: {folder.resolve()}", soft_wrap=True)
    return list(results.values())


def write_reports(store: ObjectStore, manifests: dict[str, SequenceManifest], folder: Path) -> None:
    """One HTML file a method and one summary.json for both."""
    folder.mkdir(parents=True, exist_ok=True)
    for method, manifest in manifests.items():
        (folder / f"{method}.html").write_text(render_report(store, manifest), encoding="utf-8")
    summary = {method: load_summary(store, manifests[method]) for method in ("gift", "finetune")}
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def manifest_digests(store: ObjectStore) -> dict[str, str]:
    """SHA-256 of every manifest of a store by its path."""
    from tasks.manifests import sha256_hex

    paths = [path for path in store.list("outputs") if path.endswith("/manifest.json")]
    return {path: sha256_hex(store.read_bytes(path)) for path in paths}


@contextmanager
def object_storage() -> Iterator[StoreSettings]:
    """A SeaweedFS server of our own for as long as it is needed, its bucket as a store."""
    from deployments.seaweed import running_seaweed

    with running_seaweed(Path(".gift/seaweed")) as server, server.environment():
        yield StoreSettings(url=f"s3://{server.bucket}/demo")


def compare_stores() -> None:
    """Run the demo on object storage; every manifest must be that of the folder, digest for digest.

    Raises GiftError naming the first manifest that differs.
    """
    compare(0, FOLDER)
    with object_storage() as settings:
        compare(0, FOLDER / "object-storage", settings)
        on_s3 = manifest_digests(sequence_store(settings))
    in_folder = manifest_digests(sequence_store(StoreSettings()))
    for path, digest in on_s3.items():
        if in_folder.get(path) != digest:
            raise GiftError(f"{path}: differs between the folder and object storage")
    console.print(f"{len(on_s3)} manifests on object storage, each equal to the folder's")


def main(arguments: list[str]) -> int:
    """Run the demo; 0 when everything was learnt and written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds to run (0)")
    parser.add_argument("--object-storage", action="store_true", help="run on S3 and compare")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        if options.object_storage:
            compare_stores()
        else:
            for seed in options.seeds:
                compare(seed, FOLDER / f"seed-{seed}" if seed else FOLDER)
    except GiftError as error:
        console.print(f"demo: {error}", soft_wrap=True)
        return error.exit_code
    console.print(f"{time.monotonic() - started:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
