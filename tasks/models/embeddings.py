"""Prompts are encoded once: a draw repeats them, and each has the same empty negative beside it."""

import inspect
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MAX_BYTES = 512 * 2**20
"""Embeddings kept, those used longest ago go first: a T5 encoder's are 4 MB a prompt."""

Encoded = tuple[Tensor | None, ...]


def encode_each_prompt_once(pipeline: Any) -> None:  # noqa: ANN401 - any diffusers pipeline
    """Make a pipeline remember the embeddings of prompts; one without `encode_prompt` stays.

    Every prompt is encoded by itself, so that what comes out depends neither on its batch nor on
    what was encoded before: pictures are the same on a worker that begins with another shard.
    """
    if hasattr(pipeline, "encode_prompt"):
        pipeline.encode_prompt = _Remembering(pipeline.encode_prompt)


class _Remembering:
    def __init__(self, encode: Any) -> None:  # noqa: ANN401 - each pipeline's has its own arguments
        self._encode = encode
        self._signature = inspect.signature(encode)
        self._known: OrderedDict[str, Encoded] = OrderedDict()
        self._num_bytes = 0

    def __call__(self, *arguments: Any, **named: Any) -> Encoded:  # noqa: ANN401
        bound = self._signature.bind(*arguments, **named)
        prompts = bound.arguments["prompt"]
        if isinstance(prompts, str):
            prompts = [prompts]
        rows = [self._encoded(prompt, bound) for prompt in prompts]
        if _fit(rows):
            return _joined(rows)
        bound.arguments["prompt"] = prompts  # padded to the longest of a batch, not to a fixed end
        return tuple(self._encode(*bound.args, **bound.kwargs))

    def _encoded(self, prompt: str, bound: inspect.BoundArguments) -> Encoded:
        if prompt in self._known:
            self._known.move_to_end(prompt)
            return self._known[prompt]
        bound.arguments["prompt"] = [prompt]
        encoded: Encoded = tuple(self._encode(*bound.args, **bound.kwargs))
        self._known[prompt] = encoded
        self._num_bytes += _num_bytes(encoded)
        while self._num_bytes > MAX_BYTES and len(self._known) > 1:
            self._num_bytes -= _num_bytes(self._known.popitem(last=False)[1])
        return encoded


def _fit(rows: Sequence[Encoded]) -> bool:
    """Whether what was encoded alone is of one shape."""
    return all(
        all(part is None for part in parts)
        or (all(torch.is_tensor(part) for part in parts) and len({p.shape for p in parts}) == 1)
        for parts in zip(*rows, strict=True)
    )


def _joined(rows: Sequence[Encoded]) -> Encoded:
    """A batch of prompts that were encoded alone. What has no row a prompt is the same for all."""
    return tuple(
        torch.cat(parts) if parts[0] is not None and parts[0].shape[0] == 1 else parts[0]
        for parts in zip(*rows, strict=True)
    )


def _num_bytes(encoded: Encoded) -> int:
    return sum(part.nbytes for part in encoded if torch.is_tensor(part))
