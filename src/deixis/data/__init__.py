"""Data sets: every one is a `Dataset`, a sequence of `Sample`, opened by its name or its path."""

from deixis.data.dataset import Dataset, Samples, as_dataset
from deixis.data.formats.refer import REFER
from deixis.data.opening import NAMES, SCENES, default_split, open_dataset, parse_dataset_spec

__all__ = [
    "NAMES",
    "REFER",
    "SCENES",
    "Dataset",
    "Samples",
    "as_dataset",
    "default_split",
    "open_dataset",
    "parse_dataset_spec",
]
