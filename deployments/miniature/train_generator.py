"""Train the small generator on drawn pictures: `python -m deployments.miniature.train_generator`.

Autoencoder first, then text encoder and UNet; then measure how often the mini CLIP recognises the
generated pictures. The defaults reproduce the shipped weights. No real picture is used.
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from deployments.miniature.folders import replaced_folder
from deployments.miniature.generator_unet import Denoiser, build_scheduler, train_denoiser
from deployments.miniature.generator_vae import build_vae, encoded, standardise_latents_, train_vae
from deployments.miniature.measure import load_clip, recognised
from deployments.miniature.pictures import pretraining_set
from deployments.miniature.tokens import build_tokenizer, token_ids
from deployments.miniature.train_clip import normalised
from deployments.miniature.vocabulary import (
    HELD_OUT,
    PATTERNS,
    PRETRAINING,
    SEEN,
    TASK_CLASS_NAMES,
    TASK_TEMPLATES,
    TEMPLATES,
)

FOLDER = Path(__file__).parent / "generator"

SHARES: dict[str, float] = {
    "shape": 0.24,
    "outline": 0.10,
    "pattern": 0.08,
    "material": 0.12,
    "digit": 0.06,
    "handwriting": 0.16,
    "letter": 0.06,
    "sign": 0.06,
    "lightly-worn-sign": 0.12,
}
"""Shares of the kinds: more than the CLIP's of what the later prompts ask for."""


def write_pipeline(vae: AutoencoderKL, denoiser: Denoiser, folder: Path) -> None:
    """Write the weights (as fp16) as a StableDiffusionPipeline folder."""
    # Copies are halved: the modules in training must stay float32.
    pipeline = StableDiffusionPipeline(
        vae=copy.deepcopy(vae).half(),
        text_encoder=copy.deepcopy(denoiser.text_encoder).half(),
        tokenizer=build_tokenizer(),
        unet=copy.deepcopy(denoiser.unet).half(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with replaced_folder(folder) as fresh:
        pipeline.save_pretrained(str(fresh))
        # transformers loads in the type that its config names, diffusers in float32: make it one.
        config = fresh / "text_encoder" / "config.json"
        config.write_text(config.read_text().replace('"float16"', '"float32"'))


def ready_vae(images: torch.Tensor, args: argparse.Namespace) -> AutoencoderKL:
    """Read the autoencoder from `args.vae`, or train it on images [N, 3, 32, 32] (and keep it)."""
    if args.vae and args.vae.exists():
        return AutoencoderKL.from_pretrained(str(args.vae)).eval().requires_grad_(False)
    vae = build_vae()
    train_vae(vae, images, args.vae_steps, args.vae_batch_size, args.seed)
    vae.eval().requires_grad_(False)
    standardise_latents_(vae, images[:4096])
    if args.vae:
        with replaced_folder(args.vae) as fresh:
            vae.save_pretrained(str(fresh))
    return vae


def print_reconstruction(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Print the mean squared error of the decoded images [N, 3, 32, 32] on [-1, 1]."""
    with torch.no_grad():
        decoded = vae.decode(vae.encode(images).latent_dist.mean).sample
    error = (decoded - images).square().mean().item()
    print(f"vae mean squared error {error:.4f} on [-1, 1]", flush=True)


def generated(pipeline: StableDiffusionPipeline, prompts: list[str], seed: int) -> np.ndarray:
    """Return a picture a prompt: uint8 [N, 32, 32, 3]."""
    batches = []
    for start in range(0, len(prompts), 50):
        part = prompts[start : start + 50]
        sources = [torch.Generator().manual_seed(seed + start + row) for row in range(len(part))]
        pictures = pipeline(
            part,
            height=32,
            width=32,
            num_inference_steps=20,
            guidance_scale=4,
            generator=sources,
            output_type="np",
        ).images
        batches.append((255 * pictures).round().astype(np.uint8))
    return np.concatenate(batches)


def print_recognition(folder: Path, num_pictures: int) -> None:
    """Print, for each group of classes, how many generated pictures the mini CLIP recognises."""
    pipeline = StableDiffusionPipeline.from_pretrained(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    clip = load_clip()
    shapes = tuple(name for name in SEEN if name not in PATTERNS)
    groups = {
        "shapes": (shapes, PRETRAINING, TEMPLATES),
        "patterns": (PATTERNS, PRETRAINING, TEMPLATES),
        "held-out": (HELD_OUT, PRETRAINING, TEMPLATES),
    }
    for task, names in TASK_CLASS_NAMES.items():
        groups[task] = (names, names, TASK_TEMPLATES[task])
    for group, (names, candidates, templates) in groups.items():
        chosen = [names[number % len(names)] for number in range(num_pictures)]
        pictures = generated(
            pipeline, [templates[0].replace("{}", name) for name in chosen], seed=0
        )
        labels = np.array([candidates.index(name) for name in chosen])
        share = recognised(clip, pictures, labels, candidates, templates)
        print(f"recognised {group:12s} {100 * share:5.1f} %", flush=True)


def snapshot_writer(vae: AutoencoderKL, denoiser: Denoiser, folder: Path) -> Callable[[], None]:
    """Return a function that writes the pipeline as it is now."""

    def snapshot() -> None:
        write_pipeline(vae, denoiser, folder)
        print(f"wrote {folder}", flush=True)

    return snapshot


def parsed_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--vae", type=Path, help="read the autoencoder here, or keep it here")
    parser.add_argument("--pictures", type=int, default=40_000)
    parser.add_argument("--vae-steps", type=int, default=2_400)
    parser.add_argument("--vae-batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--snapshot-every", type=int, default=1_000)
    parser.add_argument("--num-recognised", type=int, default=100, help="pictures a group")
    return parser.parse_args()


def main() -> None:
    """Draw the pictures, train both parts, write, measure."""
    args = parsed_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    started = time.monotonic()
    pictures, captions = pretraining_set(args.seed, args.pictures, SHARES)
    print(f"{len(captions)} pictures, {time.monotonic() - started:.0f} s", flush=True)
    images = normalised(pictures)
    vae = ready_vae(images, args)
    print_reconstruction(vae, images[:256])
    # Seeded again: the same denoiser whether the autoencoder was read or trained.
    torch.manual_seed(args.seed)
    denoiser = Denoiser()
    texts = sorted(set(captions))
    number = {text: position for position, text in enumerate(texts)}
    tokens = token_ids(build_tokenizer(), [*texts, ""])
    train_denoiser(
        denoiser,
        encoded(vae, images),
        torch.tensor([number[caption] for caption in captions]),
        tokens[:-1],
        tokens[-1],
        num_steps=args.steps,
        batch_size=args.batch_size,
        seed=args.seed,
        snapshot_every=args.snapshot_every,
        snapshot=snapshot_writer(vae, denoiser, args.folder),
    )
    write_pipeline(vae, denoiser, args.folder)
    print(f"trained and wrote {args.folder}, {time.monotonic() - started:.0f} s", flush=True)
    print_recognition(args.folder, args.num_recognised)


if __name__ == "__main__":
    main()
