"""The same network with less to do: batch norms folded, neighbouring linear layers multiplied out.

Both are exact but for round-off. Whoever measures a speed-up simplifies both networks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.calibration import evaluating
from compress.flow import Flow
from compress.folding import folded
from compress.merging import merged

TOLERANCE = 1e-4  # largest difference allowed, relative to the largest output ...
ROUND_OFFS = 8  # ... or so many of the dtype, where that is more


@dataclass(frozen=True, slots=True)
class Simplification:
    """What was done to a network."""

    changed: tuple[str, ...]  # its modules that were replaced
    difference: float  # of the outputs before and after, relative to the largest
    reason: str | None  # why nothing was done, where something could not be


def simplify_(
    model: nn.Module, flow: Flow, inputs: Tensor, *, fold_norms: bool = False
) -> Simplification:
    """Multiply neighbouring linear layers out and, if asked to, fold batch norms; all or nothing.

    Undone where the outputs then differ by more than round-off. Comes last: what repairs a network
    or factorises its layers needs to know them one by one. A network in training mode keeps its
    norms.

    Args:
        model: dense or factorised.
        flow: of the model, or of the dense network that it was made from.
        inputs: (N, ...), to compare the outputs on; the more, the surer.
        fold_norms: a network without norms cannot be trained as before, and is faster.
    """
    if flow.reason is not None:
        return Simplification((), 0.0, flow.reason)
    with evaluating(model):
        before = model(inputs)
    replaced: dict[str, nn.Module] = {}
    for step in (folded, merged) if fold_norms else (merged,):
        for name, module in step(model, flow).items():
            replaced.setdefault(name, model.get_submodule(name))
            model.set_submodule(name, module)
    if not replaced:
        return Simplification((), 0.0, None)
    with evaluating(model):
        difference = _difference(before, model(inputs))
    allowed = max(TOLERANCE, ROUND_OFFS * torch.finfo(before.dtype).eps)
    if not difference <= allowed:
        _put_(model, replaced)
        reason = f"the outputs would differ by {difference:.1e}, {allowed:.1e} is allowed"
        return Simplification((), difference, reason)
    return Simplification(tuple(replaced), difference, None)


def _put_(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        model.set_submodule(name, module)


def _difference(before: Tensor, after: Tensor) -> float:
    largest = before.abs().max().clamp_min(torch.finfo(before.dtype).tiny)
    return float((after - before).abs().max() / largest)
