"""What a store holds, read once: outputs by reference and digest, histories, sequence views.

What cannot be read is a damage, not an error: those who look after a store want all of it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from gift_core.errors import GiftError, SettingsError
from tasks.manifests import (
    AdapterManifest,
    BatchSizeManifest,
    FisherManifest,
    Manifest,
    ModelManifest,
    PairsManifest,
    RetrievalManifest,
    ScoreManifest,
    ScoresManifest,
    SequenceManifest,
    ShardManifest,
    sha256_hex,
)
from tasks.store.arrivals import Arrivals, arrivals_of, list_arrivals
from tasks.store.heads import Candidate, HeadEntry, ModelReference, history_of, list_sequences
from tasks.store.objects import ObjectStore

KINDS: dict[str, type[Manifest]] = {
    "pretrained": ModelManifest,
    "batch-size": BatchSizeManifest,
    "synthesize-shard": ShardManifest,
    "synthesize": PairsManifest,
    "finetune": ModelManifest,
    "adapt": AdapterManifest,
    "estimate-fisher": FisherManifest,
    "score": ScoreManifest,
    "retrieve": RetrievalManifest,
    "evaluate": ScoresManifest,
    "report": SequenceManifest,
}
_GROUPS = {
    "model": "models", "pairs": "pairs", "fisher": "fishers", "scores": "scores",
    "adapter": "adapters",
}  # fmt: skip
_NAMES_A_MANIFEST = re.compile(
    rf"parent|pairs|model|baseline|batch-size|(shard|{'|'.join(_GROUPS)})-\d+"
)

MADE_OF_A_MODEL = FisherManifest | ScoresManifest | AdapterManifest


@dataclass(frozen=True)
class Damage:
    """An object that cannot be trusted, and why."""

    path: str
    problem: str


@dataclass(frozen=True)
class StoredOutput:
    """A manifest with the digest of the bytes that the store has for it."""

    manifest: Manifest
    digest: str

    @property
    def reference(self) -> str:
        """Its name among the outputs: "<stage>/<key>"."""
        return f"{self.manifest.stage}/{self.manifest.key}"

    @property
    def named_digests(self) -> dict[str, str]:
        """The inputs that are manifests of other outputs, by their role."""
        if self.manifest.stage == "pretrained":  # its model is not one of the store
            return {}
        inputs = self.manifest.inputs.items()
        return {role: digest for role, digest in inputs if _NAMES_A_MANIFEST.fullmatch(role)}

    @property
    def named_outputs(self) -> dict[str, str]:
        """The outputs that it names by reference, with the digest that each must have."""
        if not isinstance(self.manifest, SequenceManifest):
            return {}
        return {
            reference: self.manifest.inputs.get(f"{role}-{number:02d}", "")
            for role, group in _GROUPS.items()
            for number, reference in enumerate(getattr(self.manifest, group))
        }


@dataclass
class Inventory:
    """Everything below outputs/, heads/, arrivals/ and reports/.

    `objects` are the paths below outputs/.
    """

    outputs: dict[str, StoredOutput] = field(default_factory=dict)
    by_digest: dict[str, str] = field(default_factory=dict)
    objects: dict[str, list[str]] = field(default_factory=dict)
    histories: dict[str, list[HeadEntry]] = field(default_factory=dict)
    arrivals: dict[str, Arrivals] = field(default_factory=dict)
    views: dict[str, StoredOutput] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)

    def reached_from(self, references: Iterable[str]) -> set[str]:
        """The outputs themselves and all that they were made from."""
        reached: set[str] = set()
        waiting = list(references)
        while waiting:
            reference = waiting.pop()
            if reference not in reached:
                reached.add(reference)
                waiting += self._made_from(reference)
        return reached

    def _made_from(self, reference: str) -> Iterator[str]:
        output = self.outputs.get(reference)
        if output is None:
            return
        for digest in output.manifest.inputs.values():
            if digest in self.by_digest:
                yield self.by_digest[digest]
        yield from output.named_outputs
        for ref in output.manifest.files:
            yield reference_of(ref.path)


def take_inventory(store: ObjectStore) -> Inventory:
    """Read every manifest, history and view; StoreError only when the store cannot be reached."""
    inventory = Inventory()
    for path in store.list("outputs"):
        inventory.objects.setdefault(reference_of(path), []).append(path)
    for reference, paths in inventory.objects.items():
        if f"outputs/{reference}/manifest.json" in paths:
            _take_output(store, reference, inventory)
    for name in list_sequences(store):
        try:
            inventory.histories[name] = history_of(store, name)
        except GiftError as error:
            inventory.damages.append(Damage(f"heads/{name}", str(error)))
    for name in list_arrivals(store):
        try:
            inventory.arrivals[name] = arrivals_of(store, name)
        except GiftError as error:
            inventory.damages.append(Damage(f"arrivals/{name}.json", str(error)))
    for path in store.list("reports"):
        name, _, file = path.removeprefix("reports/").partition("/")
        if file == "sequence.json":
            view = _read(store, path, SequenceManifest, inventory)
            if view is not None:
                inventory.views[name] = view
    return inventory


def reference_of(path: str) -> str:
    """The output that an object belongs to: "<stage>/<key>"."""
    return "/".join(path.split("/")[1:3])


def find_model(inventory: Inventory, text: str) -> str:
    """The model that "<stage>/<key>" or the beginning of it names; SettingsError if not one.

    A key without a digit names nothing, also where the store has one model alone.
    """
    models = [
        reference
        for reference, output in inventory.outputs.items()
        if isinstance(output.manifest, ModelManifest) and reference.startswith(text)
    ]
    key_begun = bool(text.partition("/")[2])
    if len(models) != 1 or not key_begun:
        what = "no model" if not models or not key_begun else f"{len(models)} models"
        raise SettingsError(
            f"{text!r} names {what} of the store; give finetune/ and enough of the key, "
            "as `gift log` and the report show it"
        )
    return models[0]


def candidate_of(inventory: Inventory, reference: str) -> Candidate:
    """A model with all that the store knows of its making, and what was made of it in turn.

    Parents and pairs; Fisher diagonals, scores and adapters of the generator.
    """
    lineage: dict[str, str] = {}
    model = inventory.outputs[reference]
    ancestor: StoredOutput | None = model
    while ancestor is not None and ancestor.reference not in lineage:
        digest, manifest = ancestor.digest, ancestor.manifest
        lineage[ancestor.reference] = digest
        pairs = {manifest.inputs.get("pairs", "")}
        for each in inventory.outputs.values():
            made_of = each.manifest
            if isinstance(made_of, MADE_OF_A_MODEL) and made_of.model == digest:
                lineage[each.reference] = each.digest
                pairs.add(made_of.inputs.get("pairs", ""))
        for made in pairs & inventory.by_digest.keys():
            lineage[inventory.by_digest[made]] = made
        parent = inventory.by_digest.get(manifest.inputs.get("parent", ""))
        ancestor = inventory.outputs[parent] if parent else None
    return Candidate(model=ModelReference(output=reference, digest=model.digest), lineage=lineage)


def lineages(inventory: Inventory) -> Iterator[tuple[str, Mapping[str, str]]]:
    """What each entry of each history and each arrival names, with words for where."""
    for name, history in inventory.histories.items():
        for entry in history:
            words = f"entry {entry.number} of {name}"
            yield words, {**entry.lineage, entry.model.output: entry.model.digest}
    for name, arrivals in inventory.arrivals.items():
        for task in arrivals.tasks:
            if task.model is not None:
                words = f"arrival {task.number} of {name}"
                yield words, {task.model.output: task.model.digest}


def _take_output(store: ObjectStore, reference: str, inventory: Inventory) -> None:
    path, stage = f"outputs/{reference}/manifest.json", reference.split("/")[0]
    if stage not in KINDS:
        inventory.damages.append(Damage(path, f"no stage of this release is called {stage}"))
        return
    output = _read(store, path, KINDS[stage], inventory)
    if output is None:
        return
    if output.reference != reference:
        inventory.damages.append(Damage(path, f"it is the manifest of {output.reference}"))
        return
    inventory.outputs[reference] = output
    inventory.by_digest[output.digest] = reference


def _read(
    store: ObjectStore, path: str, kind: type[Manifest], inventory: Inventory
) -> StoredOutput | None:
    data = store.read_bytes(path)
    try:
        manifest = kind.model_validate_json(data, strict=True)
    except ValidationError as error:
        problem = f"it cannot be read as a manifest ({error.errors()[0]['msg']})"
        inventory.damages.append(Damage(path, problem))
        return None
    return StoredOutput(manifest, sha256_hex(data.removesuffix(b"\n")))
