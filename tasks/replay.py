"""Replay pairs ready for training: pictures cropped, prompts tokenised, the teacher asked, once.

Deterministic preprocessing is what makes that exact: the frozen teacher's features of a pair do
not change while a task is learnt (docs/method.md, synthetic pairs).

Letters: N pairs, P distinct prompts, M prompts known before, B pairs of a batch, b of them on this
rank, L tokens, D features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gift_core.features import PairFeatures, encode_images, encode_texts
from gift_core.step import ReplayBatch, TaskBatch
from tasks.data.image_cache import cached_images
from tasks.data.loaders import index_batches
from tasks.data.splits import Split
from tasks.images import decode_rgb
from tasks.manifests import ModelManifest, PairsManifest, canonical_json, sha256_hex
from tasks.models.encoders import Encoder, load_encoder
from tasks.progress import Progress
from tasks.scratch import scratch_folder
from tasks.store.checkpoints import load_tensors, save_tensors
from tasks.store.objects import ObjectStore
from tasks.store.outputs import fetch_output, read_verified
from tasks.store.shards import ReplayPair, read_shard

ENCODE_BATCH = 256
ALL_ROWS = slice(None)


@dataclass(frozen=True)
class ReplaySet:
    """All replay pairs of a task, with the teacher's features of them.

    `images_NCHW` is uint8 and lies on disk, mapped into memory; the rest is on the CPU.
    `known_texts_MD` is None where nothing is distilled on fixed texts.
    """

    images_NCHW: NDArray[np.uint8]
    prompt_ids_N: Tensor
    prompt_tokens_PL: Tensor
    teacher_images_ND: Tensor
    teacher_texts_PD: Tensor
    known_texts_MD: Tensor | None = None

    @property
    def images_path(self) -> Path:
        """The images' file in the cache; ValueError where they lie in memory alone."""
        path = getattr(self.images_NCHW, "filename", None)
        if path is None:
            raise ValueError("these replay images are no file")
        return Path(path)

    def batch(
        self, encoder: Encoder, indices: NDArray[np.int64], rows: slice = ALL_ROWS
    ) -> ReplayBatch:
        """The pairs with these indices; each distinct prompt stands in the batch once.

        `rows` are those whose images are wanted, a rank's share; the rest is the whole batch's.
        """
        chosen_B = torch.from_numpy(indices)
        prompts, prompt_ids_B = torch.unique(self.prompt_ids_N[chosen_B], return_inverse=True)
        device = encoder.device
        return ReplayBatch(
            images_bCHW=encoder.normalise(torch.from_numpy(self.images_NCHW[indices[rows]])),
            prompt_tokens_PL=self.prompt_tokens_PL[prompts],
            prompt_ids_B=prompt_ids_B.to(device),
            teacher=PairFeatures(
                image_features_BD=self.teacher_images_ND[chosen_B].to(device),
                text_features_BD=self.teacher_texts_PD[self.prompt_ids_N[chosen_B]].to(device),
            ),
            known_texts_MD=None if self.known_texts_MD is None else self.known_texts_MD.to(device),
        )

    def batches(
        self, encoder: Encoder, batch_size: int, seed: int, start: int = 0, rows: slice = ALL_ROWS
    ) -> Iterator[ReplayBatch]:
        """Endless seeded batches for training, from number `start` on."""
        for indices in index_batches(len(self.prompt_ids_N), batch_size, seed, start):
            yield self.batch(encoder, indices, rows)

    def batches_once(self, encoder: Encoder, batch_size: int) -> Iterator[ReplayBatch]:
        """Every pair once, in order; the last batch may be shorter."""
        order = np.arange(len(self.prompt_ids_N))
        for start in range(0, len(order), batch_size):
            yield self.batch(encoder, order[start : start + batch_size])

    def task_batches_once(self, encoder: Encoder, batch_size: int) -> Iterator[TaskBatch]:
        """Every picture once, in order, labelled by its prompt among all P of them."""
        for start in range(0, len(self.prompt_ids_N), batch_size):
            rows = slice(start, start + batch_size)
            yield TaskBatch(
                images_bCHW=encoder.normalise(torch.from_numpy(np.array(self.images_NCHW[rows]))),
                labels_B=self.prompt_ids_N[rows].to(encoder.device),
                class_tokens_KL=self.prompt_tokens_PL,
            )

    def save(self, path: Path) -> None:
        """Keep all but the images in a file, for the other processes of a run."""
        tensors = {
            name: value
            for name, value in vars(self).items()
            if name != "images_NCHW" and value is not None
        }
        save_tensors(path, tensors, {})

    @classmethod
    def load(cls, path: Path, images: Path) -> Self:
        """Take up what `save` kept, with the images' file of the cache; StoreError when torn."""
        return cls(
            images_NCHW=np.load(images, mmap_mode="r", allow_pickle=False), **load_tensors(path)
        )


def load_pairs(store: ObjectStore, manifest: PairsManifest) -> list[ReplayPair]:
    """Every pair of a manifest in order, its shards verified on the way."""
    return [
        pair for ref in manifest.files for pair in read_shard(read_verified(store, ref), ref.path)
    ]


def replay_set(
    store: ObjectStore,
    manifest: PairsManifest,
    teacher: Encoder,
    cache: Path,
    known_prompts: Sequence[str] = (),
) -> ReplaySet:
    """Load the pairs and ask the frozen teacher for its features of them, once.

    Cropped images are kept in the folder `cache`, for the other stages and the next run.
    `known_prompts` are the texts to distil on, where the objective asks for them.
    """
    pairs = load_pairs(store, manifest)
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs))
    row_of = {prompt: row for row, prompt in enumerate(prompts)}

    def read(index: int) -> Image.Image:
        return decode_rgb(pairs[index].image_bytes, f"replay pair {index} of {manifest.task}")

    return _asked(
        f"Replay pairs of {manifest.task}",
        (cache, images_key(manifest, teacher), read),
        torch.tensor([row_of[pair.prompt] for pair in pairs]),
        (prompts, known_prompts),
        teacher,
    )


def labelled_set(
    what: str,
    split: Split,
    prompts: Sequence[str],
    teacher: Encoder,
    cache: Path,
    known_prompts: Sequence[str] = (),
) -> ReplaySet:
    """Take labelled images for replay: each goes with the prompt of its label."""
    key = labelled_key(split, teacher)
    labels_N = torch.from_numpy(split.labels_N)
    return _asked(what, (cache, key, split.image), labels_N, (prompts, known_prompts), teacher)


def _asked(
    what: str,
    images: tuple[Path, str, Callable[[int], Image.Image]],
    prompt_ids_N: Tensor,
    texts: tuple[Sequence[str], Sequence[str]],
    teacher: Encoder,
) -> ReplaySet:
    """Read every image, cropped and kept (folder, name, reader), and ask the teacher once."""
    cache, key, read = images
    prompts, known_prompts = texts
    count = len(prompt_ids_N)
    with Progress(what, 2 * count, "images") as progress:
        images_NCHW = cached_images(cache, key, count, read, teacher.crop, progress.advance)
        prompt_tokens_PL = teacher.tokenize(prompts)
        known = (
            _features_of_texts(teacher, teacher.tokenize(known_prompts)) if known_prompts else None
        )
        return ReplaySet(
            images_NCHW=images_NCHW,
            prompt_ids_N=prompt_ids_N,
            prompt_tokens_PL=prompt_tokens_PL,
            teacher_images_ND=_features_of_images(teacher, images_NCHW, progress),
            teacher_texts_PD=_features_of_texts(teacher, prompt_tokens_PL),
            known_texts_MD=known,
        )


def images_key(manifest: PairsManifest, encoder: Encoder) -> str:
    """The name in the cache of these pairs' images, cropped as this encoder wants them."""
    return cropped_key(manifest.digest, encoder)


def cropped_key(digest: str, encoder: Encoder) -> str:
    """The name in the cache of images whose content has a digest, cropped for this encoder.

    Another Pillow may decode or resize to other bytes.
    """
    return sha256_hex(canonical_json([digest, encoder.fingerprint, PIL.__version__]))


def labelled_key(split: Split, encoder: Encoder) -> str:
    """The name in the cache of a split's images, cropped as this encoder wants them."""
    return sha256_hex(canonical_json([split.digest, encoder.fingerprint, PIL.__version__]))


def open_model(
    store: ObjectStore, manifest: ModelManifest, folder: Path, device: torch.device
) -> Encoder:
    """Fetch a model into `folder`, verified, and load it."""
    fetch_output(store, manifest, folder)
    return load_encoder(folder, device)


def open_frozen(store: ObjectStore, manifest: ModelManifest, device: torch.device) -> Encoder:
    """Load a model that is only asked, never trained: in evaluation mode, without gradients."""
    with scratch_folder() as folder:
        encoder = open_model(store, manifest, folder, device)
    encoder.model.eval().requires_grad_(False)
    return encoder


@torch.no_grad()
def _features_of_images(
    encoder: Encoder, images_NCHW: NDArray[np.uint8], progress: Progress
) -> Tensor:
    parts = []
    for start in range(0, len(images_NCHW), ENCODE_BATCH):
        images_BCHW = torch.from_numpy(np.array(images_NCHW[start : start + ENCODE_BATCH]))
        parts.append(encode_images(encoder.model, encoder.normalise(images_BCHW)).cpu())
        progress.advance(len(images_BCHW), note="asking the teacher")
    return torch.cat(parts)


@torch.no_grad()
def _features_of_texts(encoder: Encoder, tokens_PL: Tensor) -> Tensor:
    parts = tokens_PL.split(ENCODE_BATCH)
    return torch.cat([encode_texts(encoder.model, part).cpu() for part in parts])
