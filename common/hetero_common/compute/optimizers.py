"""torch's optimizers, without what makes them ready for torch.compile.

The methods of an optimizer are wrapped so that torch's compiler keeps out of them, and the first
call of a wrapper loads the compiler to tell it so: some 70 MB of memory, and more than a second at
the start of each process, which a small device has better use for. Nothing here is compiled. The
arithmetic is torch's own.
"""

from __future__ import annotations

import inspect
from typing import TypeVar, cast

import torch
from torch.optim import Optimizer

Kind = TypeVar("Kind", bound=Optimizer)

_WRAPPED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def _plain(kind: type[Kind]) -> type[Kind]:
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _WRAPPED}
    # Among the wrappers of a step is the one that keeps autograd from recording it.
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return cast("type[Kind]", type(kind.__name__, (kind,), {**methods, "step": step}))


SGD = _plain(torch.optim.SGD)
Adam = _plain(torch.optim.Adam)
