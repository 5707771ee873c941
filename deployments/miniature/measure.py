"""Zero-shot accuracy of the mini CLIP: `python -m deployments.miniature.measure [DATA]`.

DATA is a folder written by `deployments.miniature.data_sets`; without it a temporary one is made.
Shapes: N pictures, K classes, D embedding.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import HFTokenizer

from deployments.miniature.train_clip import FOLDER, normalised


@dataclass(frozen=True)
class LoadedClip:
    """The mini CLIP in evaluation mode, and its tokenizer."""

    model: open_clip.CLIP
    tokenizer: HFTokenizer


def load_clip(folder: Path = FOLDER) -> LoadedClip:
    """Load the mini CLIP as float32 from an open_clip `local-dir:` folder."""
    name = f"local-dir:{folder}"
    model = open_clip.create_model(name)
    return LoadedClip(model.float().eval(), open_clip.get_tokenizer(name))


@torch.no_grad()
def class_features(
    clip: LoadedClip, class_names: tuple[str, ...], templates: tuple[str, ...]
) -> torch.Tensor:
    """Return float32 [K, D]: each class's normalised texts averaged and normalised again."""
    texts = [template.replace("{}", name) for name in class_names for template in templates]
    features = clip.model.encode_text(clip.tokenizer(texts), normalize=True)
    means = features.view(len(class_names), len(templates), -1).mean(dim=1)
    return torch.nn.functional.normalize(means, dim=-1)


@torch.no_grad()
def recognised(
    clip: LoadedClip,
    pictures: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    templates: tuple[str, ...],
) -> float:
    """Return the share of pictures (uint8 [N, 32, 32, 3]) whose best class is the label [N]."""
    classes_KD = class_features(clip, class_names, templates)
    images_ND = clip.model.encode_image(normalised(pictures), normalize=True)
    predictions = (images_ND @ classes_KD.T).argmax(dim=1).numpy()
    return float((predictions == labels).mean())


def main() -> None:
    """Print the table of zero-shot accuracies on the six test splits."""
    # Imported here: the generator's training needs this module but no data sets.
    from deployments.miniature.data_sets import CLASS_NAMES, TEMPLATES_OF, read_split, write_all

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--clip", type=Path, default=FOLDER)
    args = parser.parse_args()
    clip = load_clip(args.clip)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.data or Path(scratch)
        if args.data is None:
            write_all(folder)
        print(f"{'data set':12s} {'images':>6s} {'classes':>7s} {'chance %':>8s} {'correct %':>9s}")
        for name, class_names in CLASS_NAMES.items():
            pictures, labels = read_split(folder, name, "test")
            share = recognised(clip, pictures, labels, class_names, TEMPLATES_OF[name])
            size = f"{len(labels):6d} {len(class_names):7d} {100 / len(class_names):8.1f}"
            print(f"{name:12s} {size} {100 * share:9.1f}")


if __name__ == "__main__":
    main()
