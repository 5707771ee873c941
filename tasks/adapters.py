"""Which adapter makes which pictures, and how it comes from the store to the generator."""

from collections.abc import Sequence

from tasks.manifests import AdapterManifest
from tasks.models.adaptation import WEIGHTS
from tasks.models.generators import Generator
from tasks.scratch import scratch_folder
from tasks.store.objects import ObjectStore
from tasks.store.outputs import fetch_verified

Part = tuple[AdapterManifest | None, list[int]]


def by_adapter(adapters: Sequence[AdapterManifest], prompts: Sequence[str]) -> list[Part]:
    """Which adapter makes which of the prompts (by their places); the plain generator, None, first.

    `adapters` are in the order of their tasks; a prompt that several tasks share is the latest
    one's. What makes none of the prompts is left out.
    """
    owner = {prompt: n for n, each in enumerate(adapters, 1) for prompt in each.prompts}
    parts: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        parts.setdefault(owner.get(prompt, 0), []).append(place)
    makers = (None, *adapters)
    return [(makers[number], places) for number, places in sorted(parts.items())]


def adapter_inputs(adapters: Sequence[AdapterManifest], prompts: Sequence[str]) -> dict[str, str]:
    """The adapters that make some of the prompts, as inputs of what is made of these."""
    used = [adapter for adapter, _ in by_adapter(adapters, prompts) if adapter is not None]
    return {f"adapter-{number:02d}": adapter.digest for number, adapter in enumerate(used)}


class StoredAdapters:
    """Brings adapters from the store to a generator, each once, when it is first used."""

    def __init__(self, store: ObjectStore, generator: Generator) -> None:
        from tasks.models.pipelines import PipelineGenerator  # torch: only where it is used
        from tasks.models.unet_lora import Adapters

        if not isinstance(generator, PipelineGenerator):
            raise ValueError("only a pipeline takes adapters")
        self._store, self._adapters = store, Adapters(generator)

    def use(self, adapter: AdapterManifest | None) -> None:
        """Generate with this adapter from here on; StoreError when it is missing or altered."""
        if adapter is not None and adapter.digest not in self._adapters:
            with scratch_folder() as folder:
                weights = folder / WEIGHTS
                fetch_verified(self._store, adapter.file(WEIGHTS), weights)
                self._adapters.take_in(adapter.digest, weights)
        self._adapters.use(None if adapter is None else adapter.digest)
