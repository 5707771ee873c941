"""Real pictures of the pretraining's concepts with captions, in place of generated ones.

    python -m deployments.miniature.captions FILE.parquet

For the ablation without a generator (`synthesis.generator: {kind: recorded, path: FILE.parquet}`):
drawn as the pretraining's were, by seeds that no split of a data set has.
"""

import argparse
import io
from pathlib import Path

from PIL import Image

from deployments.miniature.pictures import draw
from deployments.miniature.vocabulary import PATTERNS, SEEN
from tasks.store.shards import ReplayPair, write_shard

PICTURES_A_NAME = 20
FIRST_SEED = 4_000_000
TEMPLATE = "a photo of a {}."


def captioned(pictures_a_name: int = PICTURES_A_NAME) -> list[ReplayPair]:
    """So many pictures of each of the 82 concepts, with the caption that replay prompts have."""
    pairs = []
    for number in range(pictures_a_name * len(SEEN)):
        name, seed = SEEN[number % len(SEEN)], FIRST_SEED + number
        buffer = io.BytesIO()
        kind = "pattern" if name in PATTERNS else "shape"
        Image.fromarray(draw(kind, name, seed)).save(buffer, format="PNG")
        caption = TEMPLATE.replace("{}", name)
        pairs.append(ReplayPair(buffer.getvalue(), caption, seed, "drawn", "pretraining", number))
    return pairs


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.parquet")
    path = parser.parse_args().file
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = captioned()
    write_shard(path, pairs)
    print(f"{path}: {len(pairs)} pictures of {len(SEEN)} concepts")


if __name__ == "__main__":
    main()
