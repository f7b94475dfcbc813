"""A device's images: data sets by name, its shard of one, and how all shards are dealt out.

A data set is a file that declares itself to `DATASETS`; every file of this folder is looked through
for one. What takes long to import is imported where a data set is opened.
"""

from __future__ import annotations

from hetero_client.data.opening import open_source, open_validation
from hetero_client.data.source import DATASETS, ArraySource, ImageSource, Split

__all__ = ["DATASETS", "ArraySource", "ImageSource", "Split", "open_source", "open_validation"]

# Those that import torchvision; they are imported where a set is opened that takes them.
_SLOW = {"torchvision_sets", "torchvision_shim"}
DATASETS.discover(__name__, __path__, leave_out=_SLOW)
