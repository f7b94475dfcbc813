"""The only place that imports torchvision, also where its compiled library cannot load.

A CUDA build of torchvision beside a CPU build of torch (what `pip install torch torchvision` gives
when the two come from different indexes) fails at import with `operator torchvision::nms does not
exist`: its Python code annotates operators that only the compiled library declares. Data sets need
none of them, so declaring the two bare schemas is enough.
"""

from __future__ import annotations

import sys

import torch

__all__ = ["torchvision"]

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a schema lives only as long as its Library


def _forget_half_import() -> None:
    """Python drops a package whose import failed, but keeps the submodules that had succeeded."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


def _declare_schemas() -> None:
    # torch leaves Library without annotations
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)


try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    _forget_half_import()
    _declare_schemas()
    import torchvision
