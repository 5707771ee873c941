"""The family of data sources: each kind knows where its images and labels are, and reads them.

A new kind is one more module beside these and one more member of `DataSource`.
"""

from typing import Annotated

from pydantic import Field

from tasks.data.benchmark_sets import BenchmarkData
from tasks.data.csv_list import CsvData
from tasks.data.hugging_face import HuggingFaceData
from tasks.data.image_folder import ImageFolderData
from tasks.data.parquet import ParquetData
from tasks.data.splits import ImageBytes, Split
from tasks.data.web_dataset import WebDatasetData

__all__ = [
    "BenchmarkData",
    "CsvData",
    "DataSource",
    "HuggingFaceData",
    "ImageBytes",
    "ImageFolderData",
    "ParquetData",
    "Split",
    "WebDatasetData",
]

DataSource = Annotated[
    ParquetData | ImageFolderData | WebDatasetData | CsvData | HuggingFaceData | BenchmarkData,
    Field(discriminator="kind"),
]
