"""Replay pairs ready for training: pictures cropped, prompts tokenised, the teacher asked, once.

Deterministic preprocessing is what makes that exact: the frozen teacher's features of a pair do
not change while a task is learnt (docs/method.md, synthetic pairs).

Letters: N pairs, P distinct prompts, B pairs of a batch, L tokens, D features.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gift_core.features import PairFeatures, encode_images, encode_texts
from gift_core.step import ReplayBatch
from tasks.data.loaders import cropped_images, index_batches
from tasks.images import decode_rgb
from tasks.manifests import ModelManifest, PairsManifest
from tasks.models.encoders import Encoder, load_encoder
from tasks.store.objects import ObjectStore
from tasks.store.outputs import fetch_output, read_verified
from tasks.store.shards import ReplayPair, read_shard

ENCODE_BATCH = 256


@dataclass(frozen=True)
class ReplaySet:
    """All replay pairs of a task, on the device, with the teacher's features of them."""

    images_NCHW: Tensor
    prompt_ids_N: Tensor
    prompt_tokens_PL: Tensor
    teacher: PairFeatures
    encoder: Encoder

    def batch(self, indices: NDArray[np.int64]) -> ReplayBatch:
        """The pairs with these indices; each distinct prompt stands in the batch once."""
        chosen_B = torch.from_numpy(indices)
        prompts, prompt_ids_B = torch.unique(self.prompt_ids_N[chosen_B], return_inverse=True)
        device = self.encoder.device
        return ReplayBatch(
            images_BCHW=self.encoder.normalise(self.images_NCHW[chosen_B]),
            prompt_tokens_PL=self.prompt_tokens_PL[prompts.to(device)],
            prompt_ids_B=prompt_ids_B.to(device),
            teacher=PairFeatures(
                image_features_BD=self.teacher.image_features_BD[chosen_B.to(device)],
                text_features_BD=self.teacher.text_features_BD[
                    self.prompt_ids_N[chosen_B].to(device)
                ],
            ),
        )

    def batches(self, batch_size: int, seed: int) -> Iterator[ReplayBatch]:
        """Endless seeded batches for training."""
        for indices in index_batches(len(self.prompt_ids_N), batch_size, seed):
            yield self.batch(indices)

    def batches_once(self, batch_size: int) -> Iterator[ReplayBatch]:
        """Every pair once, in order; the last batch may be shorter."""
        order = np.arange(len(self.prompt_ids_N))
        for start in range(0, len(order), batch_size):
            yield self.batch(order[start : start + batch_size])


def load_pairs(store: ObjectStore, manifest: PairsManifest) -> list[ReplayPair]:
    """Every pair of a manifest in order, its shards verified on the way."""
    return [
        pair for ref in manifest.files for pair in read_shard(read_verified(store, ref), ref.path)
    ]


def replay_set(store: ObjectStore, manifest: PairsManifest, teacher: Encoder) -> ReplaySet:
    """Load the pairs and ask the frozen teacher for its features of them, once."""
    pairs = load_pairs(store, manifest)
    images = [
        decode_rgb(pair.image_bytes, f"replay pair {pair.index} of {manifest.task}")
        for pair in pairs
    ]
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs))
    row_of = {prompt: row for row, prompt in enumerate(prompts)}
    images_NCHW = cropped_images(images, teacher.crop)
    tokens_PL = teacher.tokenize(prompts).to(teacher.device)
    return ReplaySet(
        images_NCHW=images_NCHW,
        prompt_ids_N=torch.tensor([row_of[pair.prompt] for pair in pairs]),
        prompt_tokens_PL=tokens_PL,
        teacher=PairFeatures(
            image_features_BD=_features_of_images(teacher, images_NCHW),
            text_features_BD=_features_of_texts(teacher, tokens_PL),
        ),
        encoder=teacher,
    )


def open_model(
    store: ObjectStore, manifest: ModelManifest, folder: Path, device: torch.device
) -> Encoder:
    """Fetch a model into `folder`, verified, and load it."""
    fetch_output(store, manifest, folder)
    return load_encoder(folder, device)


def open_frozen(store: ObjectStore, manifest: ModelManifest, device: torch.device) -> Encoder:
    """Load a model that is only asked, never trained: in evaluation mode, without gradients."""
    with TemporaryDirectory(prefix="gift-") as folder:
        encoder = open_model(store, manifest, Path(folder), device)
    encoder.model.eval().requires_grad_(False)
    return encoder


@torch.no_grad()
def _features_of_images(encoder: Encoder, images_NCHW: Tensor) -> Tensor:
    parts = [
        encode_images(encoder.model, encoder.normalise(part))
        for part in images_NCHW.split(ENCODE_BATCH)
    ]
    return torch.cat(parts)


@torch.no_grad()
def _features_of_texts(encoder: Encoder, tokens_PL: Tensor) -> Tensor:
    return torch.cat([encode_texts(encoder.model, part) for part in tokens_PL.split(ENCODE_BATCH)])
