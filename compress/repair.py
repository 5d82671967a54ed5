"""Mend a factorised network without labels: last factors, then batch norm statistics.

The refit is the linear form of asymmetric reconstruction (Zhang et al., "Accelerating Very Deep
Convolutional Networks for Classification and Detection", 2016): each layer's last factor is fit
to the dense network's output from what the layers before it, already factorised, really give it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.calibration import evaluating, trace, watching, windows
from compress.errors import PlanError
from compress.layers import layer_named, shape_of
from compress.plan import Plan
from compress.shape import ConvShape
from compress.surgery import is_factorized

ROWS = 8192  # positions sampled per layer, over all inputs
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # relative to the mean square of each regressor

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


@dataclass(frozen=True, slots=True)
class RepairReport:
    """Mean squared difference to the dense network's outputs on the calibration inputs."""

    error_before: float
    error_after: float
    refitted: tuple[str, ...]  # layers whose last factor changed
    norms_recalibrated: bool


@dataclass(frozen=True, slots=True)
class _Sample:
    """Outputs of a dense layer at some positions, from one call."""

    index: tuple[Tensor, ...]  # of the positions in (N, H, W) or (N, ...), each (K,)
    fold: Tensor  # (K,) 0 or 1, by input
    outputs: Tensor  # (K, O)


def repair_(
    model: nn.Module, dense: nn.Module, plan: Plan, batches: Sequence[Tensor]
) -> RepairReport:
    """Bring the outputs of `model` nearer to those of `dense`; the same call, the same result.

    First the last factor and bias of each factorised layer, in forward order, by ridge
    regression; a ridge is chosen, and a layer changed at all, by the error on inputs that were
    left out of the fit. Then the running statistics of every batch norm. Each of the two steps
    is undone where it raises the error of the network's outputs.

    Args:
        model: factorised by `plan`.
        dense: the network before; left as it is.
        plan: names the layers to refit.
        batches: calibration inputs (N, ...) on the device of both networks.

    Raises:
        PlanError: a layer of the plan is not factorised in `model`.
    """
    stages = {name: _last_stage(model, name) for name, _ in plan}
    norms = [m for m in model.modules() if isinstance(m, Norm) and m.track_running_stats]
    with evaluating(dense), evaluating(model):
        uses = trace(dense, batches[0][:1])
        calls = {name: use.calls for name, use in uses.items() if name in stages}
        samples, answers = _ask(dense, calls, batches)
        errors = [_output_error(model, batches, answers)]

        def rises() -> bool:
            """Whether the outputs are farther off than at the last step that was kept."""
            error = _output_error(model, batches, answers)
            if error <= errors[-1]:
                errors.append(error)
                return False
            return True

        before = _snapshot(stages.values())
        refitted = [
            name
            for name, times in calls.items()
            if _refit_(model, stages[name], times, samples[name], batches)
        ]
        if refitted and rises():
            _put_back_(before)
            refitted = []
        before = _snapshot(norms)
        recalibrated = _recalibrate_(model, norms, batches)
        if recalibrated and rises():
            _put_back_(before)
            recalibrated = False
    return RepairReport(errors[0], errors[-1], tuple(refitted), recalibrated)


Snapshot = list[tuple[nn.Module, dict[str, Tensor]]]


def _snapshot(modules: Iterable[nn.Module]) -> Snapshot:
    return [(m, {key: value.clone() for key, value in m.state_dict().items()}) for m in modules]


def _put_back_(snapshot: Snapshot) -> None:
    for module, state in snapshot:
        module.load_state_dict(state)


def _last_stage(model: nn.Module, name: str) -> nn.Module:
    layer = layer_named(model, name)
    if not is_factorized(layer):
        raise PlanError(f"the plan names {name!r}, which is not factorised in the network")
    return layer[-1]


def _ask(
    dense: nn.Module, calls: Mapping[str, int], batches: Sequence[Tensor]
) -> tuple[dict[str, list[_Sample]], list[Tensor]]:
    """What the dense network computes: in its layers, at sampled positions, and in the end."""
    samples: dict[str, list[_Sample]] = {name: [] for name in calls}
    inputs = sum(len(batch) for batch in batches)
    generator = torch.Generator().manual_seed(0)
    offset = 0

    def record(name: str, layer: nn.Module, y: Tensor) -> None:
        y = y.movedim(1, -1) if isinstance(layer, nn.Conv2d) else y
        total = math.prod(y.shape[:-1])
        wanted = math.ceil(ROWS * len(batch) / inputs / calls[name])
        chosen = torch.arange(total)
        if wanted < total:
            chosen = torch.randint(total, (wanted,), generator=generator)
        index = _unravel(chosen.to(y.device), y.shape[:-1])
        samples[name].append(_Sample(index, (index[0] + offset) % 2, y[index]))

    answers = []
    with ExitStack() as stack:
        for name in calls:
            hook = dense.get_submodule(name).register_forward_hook(
                lambda layer, _, y, name=name: record(name, layer, y)
            )
            stack.callback(hook.remove)
        for batch in batches:
            answers.append(dense(batch))
            offset += len(batch)
    return samples, answers


def _unravel(positions: Tensor, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """Row-major positions as indices; torch's own loads sympy for it, which takes seconds."""
    index = []
    for size in reversed(shape):
        index.append(positions % size)
        positions = positions // size
    return tuple(reversed(index))


def _output_error(model: nn.Module, batches: Sequence[Tensor], answers: Sequence[Tensor]) -> float:
    squares = sum(
        (model(batch) - answer).square().sum(dtype=torch.float64)
        for batch, answer in zip(batches, answers, strict=True)
    )
    return float(squares) / sum(answer.numel() for answer in answers)


def _refit_(
    model: nn.Module,
    stage: nn.Module,
    calls: int,
    samples: Sequence[_Sample],
    batches: Sequence[Tensor],
) -> bool:
    """Refit one last stage; False, and no change, where it does not help inputs left out.

    With h what enters the stage (a 1 for the bias appended) and r what its output lacks of the
    dense layer's, the change of [weight, bias] is E[r h^T] (E[h h^T] + ridge)^-1.
    """
    shape, weight = shape_of(stage), stage.get_parameter("weight")
    exact = torch.promote_types(weight.dtype, torch.float32)
    current = weight.to(exact).flatten(1)
    if shape.bias:
        current = torch.cat([current, stage.get_parameter("bias").to(exact)[:, None]], 1)
    gram = current.new_zeros(2, *2 * current.shape[1:], dtype=torch.float64)
    cross = current.new_zeros(2, *current.shape, dtype=torch.float64)
    for x, sample in zip(_inputs(model, stage, calls, batches), samples, strict=True):
        seen = windows(shape, x) if isinstance(shape, ConvShape) else x
        h = seen[sample.index].flatten(1).to(exact)
        if shape.bias:
            h = torch.cat([h, torch.ones_like(h[:, :1])], 1)
        lack = sample.outputs.to(exact) - h @ current.T
        for fold in (0, 1):
            chosen = sample.fold == fold
            gram[fold] += h[chosen].T @ h[chosen]
            cross[fold] += lack[chosen].T @ h[chosen]

    scale = gram.sum(0).diagonal().sqrt()
    scale[scale == 0] = 1
    gram /= scale[:, None] * scale
    cross /= scale

    def left_out(ridge: float) -> float:
        """Change of the squared error on each half of the inputs by a fit to the other half."""
        error = 0.0
        for fit, test in ((0, 1), (1, 0)):
            change = _solve(gram[fit], cross[fit], ridge / 2)
            error += float((change * (change @ gram[test] - 2 * cross[test])).sum())
        return error

    ridge = min(RIDGES, key=left_out)
    if not left_out(ridge) < 0:
        return False
    change = (_solve(gram.sum(0), cross.sum(0), ridge) / scale).to(exact)
    if shape.bias:
        stage.get_parameter("bias").add_(change[:, -1])
        change = change[:, :-1]
    weight.add_(change.view_as(weight))
    return True


def _solve(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """cross (gram + ridge I)^-1."""
    ridged = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(ridged, cross, left=False)


def _inputs(
    model: nn.Module, stage: nn.Module, calls: int, batches: Sequence[Tensor]
) -> Iterator[Tensor]:
    """What enters `stage`, call by call; each forward pass ends with the last call."""
    for batch in batches:
        seen: list[Tensor] = []

        def take(x: Tensor, seen: list[Tensor] = seen) -> None:
            seen.append(x)
            if len(seen) == calls:
                raise _EnoughError

        with suppress(_EnoughError), watching({stage: take}):
            model(batch)
        yield from seen


class _EnoughError(Exception):
    """Ends a forward pass whose rest is of no use."""


def _recalibrate_(model: nn.Module, norms: Sequence[Norm], batches: Sequence[Tensor]) -> bool:
    """Running statistics as the average over `batches`, each input with equal weight.

    An input that is a batch alone may have no variance and is left out; without any other, or
    without norms, nothing changes and False comes back.
    """
    batches = [batch for batch in batches if len(batch) > 1]
    if not norms or not batches:
        return False
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    inputs = 0
    for batch in batches:
        inputs += len(batch)
        for norm in norms:
            norm.momentum = len(batch) / inputs
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    return True
