"""Recorded pictures in place of generated ones: a Parquet file of images and captions."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gift_core.errors import DataError, SettingsError
from tasks.digests import sha256_of_file
from tasks.images import decode_rgb
from tasks.models.generators import WHERE, Pictures, RecordedSettings


class RecordedPictures:
    """A generator that answers a prompt with a recorded picture of that caption.

    Raises SettingsError when the file is not one of captioned pictures.
    """

    def __init__(self, settings: RecordedSettings) -> None:
        self.settings = settings
        path = Path(settings.path)
        where = f"{WHERE}.path: {path}"
        try:
            with pq.ParquetFile(path, memory_map=True) as file:
                self._table = file.read(columns=["image", settings.captions])
            captions = self._table[settings.captions]
            images = self._table.schema.field("image").type
            if not pa.types.is_struct(images) or images.get_field_index("bytes") < 0:
                raise SettingsError(f"{where}: its column image is no struct with bytes")
            if not (pa.types.is_string(captions.type) or pa.types.is_large_string(captions.type)):
                raise SettingsError(f"{where}: its column {settings.captions} holds no text")
        except SettingsError:
            raise
        # What is wrong with a Parquet file shows at many places, in many kinds of exceptions.
        except Exception as error:
            raise SettingsError(
                f"{where} is not a readable Parquet file with the columns image and "
                f"{settings.captions} ({error})"
            ) from None
        self.identity = f"{path.name}@{sha256_of_file(path)[:16]}"

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for row, caption in enumerate(self._table[self.settings.captions].to_pylist()):
            if caption:
                rows.setdefault(caption, []).append(row)
        return rows

    @property
    def known_prompts(self) -> tuple[str, ...]:
        """Its captions in the order first seen, none twice."""
        return tuple(self._rows)

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> Pictures:
        """Read a picture for each prompt; DataError when there is none, or it cannot be read."""
        images = [self._read(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        return Pictures(images, [False] * len(images))

    def _read(self, prompt: str, seed: int) -> np.ndarray:
        rows = self._rows.get(prompt)
        if not rows:
            raise DataError(f"{self.settings.path}: no picture captioned {prompt!r}")
        # A number of its own for each seed: consecutive seeds would walk through the rows in step.
        row = rows[int(np.random.PCG64(seed).random_raw() % len(rows))]
        where = f"{self.settings.path}: row {row}"
        data = self._table["image"][row]["bytes"].as_py()
        if data is None:
            raise DataError(f"{where} has no image bytes; write the images into the file")
        return np.asarray(decode_rgb(data, where))
