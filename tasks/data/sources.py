"""The family of data sources: each kind knows where its images and labels are, and reads them.

A new kind is one more module beside these and one more member of `DataSource`.
"""

from typing import Annotated

from pydantic import Field

from tasks.data.csv_list import CsvData
from tasks.data.image_folder import ImageFolderData
from tasks.data.parquet import ParquetData
from tasks.data.splits import ImageBytes, Split
from tasks.data.web_dataset import WebDatasetData

__all__ = [
    "CsvData",
    "DataSource",
    "ImageBytes",
    "ImageFolderData",
    "ParquetData",
    "Split",
    "WebDatasetData",
]

DataSource = Annotated[
    ParquetData | ImageFolderData | WebDatasetData | CsvData, Field(discriminator="kind")
]
