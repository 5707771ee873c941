"""Replay pairs as a data set to hand on: shards, contact sheet, and a card that tells what it is.

The card follows from manifest and shards alone: it can be written at any time and is never out of
date. Its head is the one that Hugging Face `datasets` reads.
"""

import json
from collections import Counter
from pathlib import Path

from gift_core.errors import SettingsError, StoreError, one_line
from tasks.artifacts import sample_pairs
from tasks.figures import contact_sheet
from tasks.images import decode_rgb
from tasks.manifests import PairsManifest, canonical_json
from tasks.publishing import escaped
from tasks.report import load_sequence_manifest
from tasks.store.export import new_folder
from tasks.store.objects import ObjectStore
from tasks.store.outputs import fetch_verified, find_output
from tasks.store.shards import read_shard

CARD, SHEET, MANIFEST = "README.md", "contact-sheet.png", "manifest.json"
NUM_SHOWN, COLUMNS = 64, 8


def find_pairs(store: ObjectStore, name: str) -> PairsManifest:
    """Find the replay pairs called SEQUENCE/TASK: those made before that task was learnt.

    Raises SettingsError naming the tasks that have pairs, StoreError when they are damaged.
    """
    sequence, slash, task = name.partition("/")
    if not slash:
        raise SettingsError(f"{name}: name the pairs as SEQUENCE/TASK, as in products/shoes")
    known = []
    for reference in load_sequence_manifest(store, sequence).pairs:
        pairs = find_output(store, PairsManifest, *reference.split("/"))
        if pairs is None:
            raise StoreError(
                f"{store.url}/outputs/{reference} is gone or damaged; run the sequence again"
            )
        if pairs.task == task:
            return pairs
        known.append(pairs.task)
    raise SettingsError(
        f"{sequence} has no replay pairs for {task!r}; it has them for {', '.join(known) or 'none'}"
    )


def sheet_of(store: ObjectStore, pairs: PairsManifest) -> bytes:
    """Draw the first pairs as one PNG, in rows of eight."""
    shown = sample_pairs(store, pairs, NUM_SHOWN)
    pictures = [decode_rgb(pair.image_bytes, f"replay pair {pair.index}") for pair in shown]
    return contact_sheet(pictures, COLUMNS)


def hand_on(store: ObjectStore, pairs: PairsManifest, folder: Path, licence: str) -> None:
    """Put pairs into a new folder: shards, card, contact sheet, manifest; whole or not at all.

    Raises SettingsError when the folder is not empty, StoreError for a missing or altered shard.
    """
    with new_folder(folder) as made:
        (made / "data").mkdir()
        prompts: Counter[str] = Counter()
        for ref in pairs.files:
            shard = made / "data" / ref.name
            fetch_verified(store, ref, shard)
            prompts.update(pair.prompt for pair in read_shard(shard.read_bytes(), ref.path))
        (made / SHEET).write_bytes(sheet_of(store, pairs))
        (made / MANIFEST).write_bytes(canonical_json(pairs.model_dump(mode="json")) + b"\n")
        (made / CARD).write_text(card_of(pairs, prompts, licence), encoding="utf-8")


def card_of(pairs: PairsManifest, prompts: Counter[str], licence: str) -> str:
    """Say in markdown what the pairs are: generator, licence, settings, counts, digests."""
    least, most = min(prompts.values()), max(prompts.values())
    num_bytes = sum(ref.num_bytes for ref in pairs.files)
    lines = [
        "---",
        f"license: {json.dumps(one_line(licence, 100))}",
        f"pretty_name: {json.dumps(f'Replay pairs before {pairs.task}')}",
        "tags: [synthetic, image-text, gift]",
        "configs: [{config_name: default, data_files: data/*.parquet}]",
        "---",
        "",
        f"# Replay pairs before {escaped(pairs.task)}",
        "",
        f"![the first pairs]({SHEET})",
        "",
        "Pictures with the prompts that they were made from: what a vision-language model knew "
        "before it learnt a task (GIFT, arXiv 2503.04229).",
        "",
        f"- Generator: {escaped(pairs.generator)}",
        *_adapted(pairs),
        f"- Licence: {escaped(licence)}",
        f"- Pairs: {pairs.num_pairs:,} in {len(pairs.files)} shards, {num_bytes / 1e6:,.1f} MB",
        f"- Prompts: {len(prompts):,} distinct, each {least} to {most} times",
        *_batch_size(pairs),
        f"- Not kept: {escaped(pairs.rejects_in_words)}",
        f"- Seed of the run: {pairs.seed}",
        f"- SHA-256 of the prompts: `{pairs.prompts_sha256}`",
        f"- SHA-256 of the manifest: `{pairs.digest}`",
        "",
        "Settings:",
        "",
        *(f"    {line}" for line in json.dumps(pairs.settings, indent=2).splitlines()),
        "",
        "| file | bytes | SHA-256 |",
        "| --- | ---: | --- |",
        *(f"| data/{ref.name} | {ref.num_bytes:,} | `{ref.sha256}` |" for ref in pairs.files),
        "",
        "Made with "
        + ", ".join(f"{name} {version}" for name, version in sorted(pairs.versions.items()))
        + ".",
    ]
    return "\n".join(lines) + "\n"


def _batch_size(pairs: PairsManifest) -> list[str]:
    """Pictures a call, where the number was found and not set."""
    if "batch-size" not in pairs.inputs:
        return []
    size = pairs.settings["generator"]["batch_size"]
    return [f"- Pictures a call: {size} (auto: found once for this generator, then kept)"]


def _adapted(pairs: PairsManifest) -> list[str]:
    """The line that tells of adapters: they have learnt from real images, which one should know."""
    if not pairs.adapted:
        return []
    return [
        f"- Adapted: pairs made by a LoRA of the generator, learnt on real training images of the "
        f"task: {escaped(pairs.adapted_in_words)}"
    ]
