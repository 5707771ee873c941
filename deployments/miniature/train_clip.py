"""Train the small CLIP on drawn pictures: `python -m deployments.miniature.train_clip`.

Shapes: B batch of pictures, K distinct captions in the batch, N pictures in all, D embedding.
The defaults reproduce the shipped weights (20 to 30 minutes on one core).
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch.nn import functional

from deployments.miniature.folders import replaced_folder
from deployments.miniature.pictures import pretraining_set
from deployments.miniature.tokens import END_ID, PAD_ID, build_tokenizer, num_tokens, save_tokenizer
from deployments.miniature.tokens import token_ids as ids_of
from deployments.miniature.vocabulary import CONTEXT_LENGTH

FOLDER = Path(__file__).parent / "clip"
MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
MAX_LOGIT_SCALE = math.log(50.0)


def model_settings() -> dict[str, object]:
    """Return open_clip's `model_cfg` of the small CLIP."""
    return {
        "embed_dim": 64,
        "vision_cfg": {
            "image_size": 32,
            "patch_size": 8,
            "width": 128,
            "layers": 4,
            "head_width": 32,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": num_tokens(),
            "width": 64,
            "heads": 2,
            "layers": 2,
            # open_clip reads the tokenizer from this folder whatever the name says, but only if
            # there is a name; without one it silently takes its own tokenizer.
            "hf_tokenizer_name": ".",
            "pool_type": "eos",
            "eos_id": END_ID,
            "pad_id": PAD_ID,
        },
    }


def preprocess_settings() -> dict[str, object]:
    """Return open_clip's `preprocess_cfg`: resizing a 32 x 32 picture changes nothing."""
    return {
        "size": [32, 32],
        "mode": "RGB",
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }


def build_model() -> CLIP:
    """Build the small CLIP with random weights."""
    settings = model_settings()
    return CLIP(settings["embed_dim"], settings["vision_cfg"], settings["text_cfg"])


def normalised(pictures: np.ndarray) -> torch.Tensor:
    """Return uint8 pictures [N, 32, 32, 3] as the model takes them: float32 [N, 3, 32, 32]."""
    scaled = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return ((scaled - 0.5) / 0.5).contiguous()


def shifted(images: torch.Tensor, generator: torch.Generator, pixels: int = 2) -> torch.Tensor:
    """Return the images [B, 3, 32, 32], the batch moved by up to `pixels`, edges repeated."""
    padded = functional.pad(images, (pixels,) * 4, mode="replicate")
    row, column = torch.randint(0, 2 * pixels + 1, (2,), generator=generator).tolist()
    return padded[:, :, row : row + 32, column : column + 32]


def contrastive_loss(
    model: CLIP, images: torch.Tensor, caption_ids: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Return the loss of images [B, 3, 32, 32] and caption numbers [B] into tokens [N, T].

    Equal captions are one text: all their pictures are its positives, so that no true pair is
    taught as a false one, as the usual diagonal target would.
    """
    distinct, targets = caption_ids.unique(return_inverse=True)
    image_features = model.encode_image(images, normalize=True)
    text_features = model.encode_text(tokens[distinct], normalize=True)
    logits_BK = model.logit_scale.exp() * image_features @ text_features.T
    counts = torch.bincount(targets, minlength=len(distinct))
    share_KB = functional.one_hot(targets, len(distinct)).T / counts[:, None]
    image_loss = functional.cross_entropy(logits_BK, targets)
    text_loss = functional.cross_entropy(logits_BK.T, share_KB)
    return (image_loss + text_loss) / 2


def learning_rate_at(step: int, num_steps: int, peak: float, warmup_steps: int = 100) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine down to zero."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(model: torch.nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """Build AdamW that decays matrices and leaves vectors and the temperature alone."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))


def train(model: CLIP, pictures: np.ndarray, captions: list[str], args: argparse.Namespace) -> None:
    """Train the model on pictures (uint8 [N, 32, 32, 3]) and their captions."""
    generator = torch.Generator().manual_seed(args.seed)
    texts = sorted(set(captions))
    number = {text: position for position, text in enumerate(texts)}
    caption_ids = torch.tensor([number[caption] for caption in captions])
    tokens = ids_of(build_tokenizer(), texts)
    images = normalised(pictures)
    optimizer = build_optimizer(model, args.learning_rate)
    started = time.monotonic()
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, args.steps, args.learning_rate)
        rows = torch.randint(0, len(images), (args.batch_size,), generator=generator)
        batch = shifted(images[rows], generator)
        loss = contrastive_loss(model, batch, caption_ids[rows], tokens)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        if step % 50 == 0 or step == args.steps - 1:
            seconds = time.monotonic() - started
            print(f"step {step} loss {loss.item():.4f} seconds {seconds:.0f}", flush=True)
        if step and step % args.snapshot_every == 0:
            write_model(model, args.folder)
    write_model(model, args.folder)


def write_model(model: CLIP, folder: Path) -> None:
    """Write the model (as fp16) and its tokenizer as an open_clip `local-dir:` folder."""
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    config = {"model_cfg": model_settings(), "preprocess_cfg": preprocess_settings()}
    with replaced_folder(folder) as fresh:
        save_file(weights, str(fresh / "open_clip_model.safetensors"))
        (fresh / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_tokenizer(fresh)


def parsed_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--pictures", type=int, default=48_000)
    parser.add_argument("--steps", type=int, default=1_600)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--snapshot-every", type=int, default=400)
    return parser.parse_args()


def main() -> None:
    """Draw the pictures, train, write."""
    args = parsed_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    started = time.monotonic()
    pictures, captions = pretraining_set(args.seed, args.pictures)
    seconds = time.monotonic() - started
    print(f"{len(captions)} pictures, {len(set(captions))} captions, {seconds:.0f} s", flush=True)
    train(build_model(), pictures, captions, args)


if __name__ == "__main__":
    main()
