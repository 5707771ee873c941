"""What is told of an adapted generator: how it was learnt, and which pairs it made."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from tasks.manifests import AdapterManifest, PairsManifest
from tasks.publishing import code, escaped


def adapter_markdown(manifest: AdapterManifest, history: Mapping[str, Sequence[float]]) -> str:
    """Lay out first and final loss, and how sure the model was of the images that were learnt."""
    loss, sure = history["loss"], history["confidence"]
    tenth = max(1, len(loss) // 10)
    num_bytes = sum(ref.num_bytes for ref in manifest.files)
    return (
        f"## The generator adapted to {escaped(manifest.task)}\n\n"
        f"{len(loss):,} steps on {manifest.num_images:,} training images, those that the model "
        f"{code(manifest.model[:16])} recognises most confidently (probability of their class "
        f"{min(sure):.3f} to {max(sure):.3f}, mean {fmean(sure):.3f}); "
        f"{num_bytes / 1e6:,.1f} MB.\n\n"
        "| | first tenth | last tenth |\n| --- | ---: | ---: |\n"
        f"| mean squared error | {fmean(loss[:tenth]):.4g} | {fmean(loss[-tenth:]):.4g} |\n"
    )


def adapted_words(pairs: PairsManifest) -> str:
    """Say how many pairs an adapted generator made, by task: " Made by ..."; empty for none."""
    if not pairs.adapted:
        return ""
    counts = escaped(pairs.adapted_in_words)
    return f" Made by the generator adapted to the task of their prompt: {counts}."
