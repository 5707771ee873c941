"""Data sets of Hugging Face `datasets` on disk: what save_to_disk wrote, or Parquet as on the hub.

Only tables are read. A data set that needs a script to be loaded is refused by not being a table.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from gift_core.errors import DataError
from tasks.data.parquet import ColumnImages, check_columns, class_names_of
from tasks.data.splits import SourceSettings, Split
from tasks.digests import digest_of_files


class HuggingFaceData(SourceSettings):
    """A folder from `Dataset.save_to_disk`, SPLIT/*.arrow, or of Parquet shards as on the hub.

    Parquet shards are SPLIT-*.parquet, in the folder or in data/ below it, or SPLIT/*.parquet.
    Class names are the label's in the tables' own metadata.
    """

    kind: Literal["hf-datasets"] = "hf-datasets"
    path: str = Field(min_length=1, description="Folder of the data set, with all its splits")
    image_column: str = Field(default="image", min_length=1, description="Column of the images")
    label_column: str = Field(default="label", min_length=1, description="Column of the labels")

    def read_split(self, split: str) -> Split:
        """Read a whole split; DataError saying which file or column is missing or wrong."""
        root, name = Path(self.path), self.name_of(split)
        files = _files(root, name)
        if not files:
            raise DataError(
                f"no {name}/*.arrow, {name}-*.parquet or {name}/*.parquet in {root}; save the "
                f"{split} split there with save_to_disk or to_parquet"
            )
        columns = [self.image_column, self.label_column]
        try:
            table = pa.concat_tables([_table(file, columns) for file in files])
            labels = table.rename_columns(["image", "label"])
            check_columns(files[0], labels)
            return Split(
                labels_N=labels["label"].cast(pa.int64()).to_numpy().astype(np.int64),
                class_names=class_names_of(files[0], table.schema, self.label_column),
                images=ColumnImages(files[0].parent, labels["image"]),
                digest=digest_of_files(root, files),
            )
        except DataError:
            raise
        # What is wrong with a table shows at many places, in many kinds of exceptions.
        except Exception as error:
            raise DataError(f"{files[0].parent}: not readable tables ({error})") from None


def _files(root: Path, split: str) -> list[Path]:
    for pattern in (
        f"{split}/*.arrow", f"{split}-*.parquet", f"data/{split}-*.parquet", f"{split}/*.parquet",
    ):  # fmt: skip
        if found := sorted(path for path in root.glob(pattern) if os.path.isfile(path)):
            return found
    return []


def _table(file: Path, columns: Sequence[str]) -> pa.Table:
    """Two columns of a file, mapped into memory; DataError when one is not there."""
    parquet = pq.ParquetFile(file, memory_map=True) if file.suffix == ".parquet" else None
    arrow = None if parquet else pa.ipc.open_stream(pa.memory_map(str(file)))
    schema = parquet.schema_arrow if parquet else arrow.schema
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise DataError(
            f"{file}: no column {' and no column '.join(missing)}, but {', '.join(schema.names)}; "
            "set image_column and label_column"
        )
    return parquet.read(columns=columns) if parquet else arrow.read_all().select(columns)
