"""Mend a factorised network without labels: last factors, then batch norm statistics.

The refit is the linear form of asymmetric reconstruction (Zhang et al., "Accelerating Very Deep
Convolutional Networks for Classification and Detection", 2016): each layer's last factor is fit
to the dense network's output from what the layers before it, already factorised, really give it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.calibration import evaluating, watching, windows
from compress.errors import PlanError
from compress.kernels import kernel_of, kernel_size, weight_of
from compress.layers import is_plain, layer_named, shape_of
from compress.methods.groups import groups_of
from compress.plan import Plan
from compress.reference import Reference
from compress.shape import ConvShape
from compress.surgery import is_factorized

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # relative to the mean square of each regressor

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


@dataclass(frozen=True, slots=True)
class RepairReport:
    """Mean squared difference to the dense network's outputs on the calibration inputs."""

    error_before: float
    error_after: float
    refitted: tuple[str, ...]  # layers whose last factor changed
    norms_recalibrated: bool


def repair_(model: nn.Module, plan: Plan, reference: Reference) -> RepairReport:
    """Bring the outputs of `model` nearer to the reference; the same call, the same result.

    First the last factor and bias of each factorised layer, in forward order, by ridge
    regression; a ridge is chosen, and a layer changed at all, by the error on inputs that were
    left out of the fit. Factors that layers share stay as they are, and so do last factors that
    serve several slices of the outputs.
    Then the running statistics of every batch norm. Each of the two steps is undone where it
    raises the error of the network's outputs.

    Args:
        model: factorised by `plan`, on the device of the reference.
        plan: names the layers to refit.
        reference: of the dense network, with samples of these layers; what it has no samples of
            is not refitted.

    Raises:
        PlanError: a layer of the plan is not factorised in `model`.
    """
    stages = {name: _last_stage(model, name) for name, _ in plan}
    stages = {
        name: stage
        for name, stage in stages.items()
        if is_plain(stage) and not _is_shared(stage, model)
    }
    norms = [m for m in model.modules() if isinstance(m, Norm) and m.track_running_stats]
    with evaluating(model):
        errors = [_output_error(model, reference)]

        def rises() -> bool:
            """Whether the outputs are farther off than at the last step that was kept."""
            error = _output_error(model, reference)
            if error <= errors[-1]:
                errors.append(error)
                return False
            return True

        before = _snapshot(stages.values())
        refitted = [
            name
            for name in reference.samples
            if name in stages and _refit_(model, stages[name], name, reference)
        ]
        if refitted and rises():
            _put_back_(before)
            refitted = []
        before = _snapshot(norms)
        recalibrated = _recalibrate_(model, norms, reference.batches)
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


def _is_shared(stage: nn.Module, model: nn.Module) -> bool:
    """Whether another module holds a parameter of the stage."""
    own = set(stage.parameters())
    return any(
        module is not stage and own & set(module.parameters(recurse=False))
        for module in model.modules()
    )


def _output_error(model: nn.Module, reference: Reference) -> float:
    squares = sum(
        (model(batch).double() - answer).square().sum()
        for batch, answer in zip(reference.batches, reference.answers, strict=True)
    )
    return float(squares) / sum(answer.numel() for answer in reference.answers)


def _refit_(model: nn.Module, stage: nn.Module, name: str, reference: Reference) -> bool:
    """Refit the last stage of a layer; False, and no change, where inputs left out are not helped.

    With h what enters the stage (a 1 for the bias appended) and r what its output lacks of the
    dense layer's, the change of [weight, bias] is E[r h^T] (E[h h^T] + ridge)^-1: of each group by
    itself.
    """
    shape, weight = shape_of(stage), stage.get_parameter("weight")
    groups = groups_of(shape)
    exact = torch.promote_types(weight.dtype, torch.float32)
    outputs, *rest = kernel_size(shape)
    current = kernel_of(shape, weight).to(exact)
    current = current.reshape(groups, outputs // groups, -1)  # (G, O / G, D / G)
    if shape.bias:
        bias = stage.get_parameter("bias").to(exact)
        current = torch.cat([current, bias.view(*current.shape[:2], 1)], 2)
    size = current.shape[2]
    gram = current.new_zeros(2, groups, size, size, dtype=torch.float64)
    cross = current.new_zeros(2, *current.shape, dtype=torch.float64)
    inputs = _inputs(model, stage, reference.calls[name], reference.batches)
    for x, sample in zip(inputs, reference.samples[name], strict=True):
        seen = windows(shape, x) if isinstance(shape, ConvShape) else x
        h = _grouped(seen[sample.index].to(exact), groups)
        if shape.bias:
            h = torch.cat([h, torch.ones_like(h[..., :1])], 2)
        lack = _grouped(sample.outputs.to(exact), groups) - h @ current.mT
        for fold in (0, 1):
            chosen = sample.fold == fold
            gram[fold] += h[:, chosen].mT @ h[:, chosen]
            cross[fold] += lack[:, chosen].mT @ h[:, chosen]

    scale = gram.sum(0).diagonal(dim1=1, dim2=2).sqrt()[:, None]
    scale[scale == 0] = 1
    gram /= scale.mT * scale
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
        stage.get_parameter("bias").add_(change[..., -1].flatten())
        change = change[..., :-1]
    weight.add_(weight_of(shape, change.reshape(outputs, *rest)))
    return True


def _grouped(rows: Tensor, groups: int) -> Tensor:
    """(K, channels, ...) as (G, K, values of a group)."""
    return rows.reshape(len(rows), groups, -1).transpose(0, 1)


def _solve(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """cross (gram + ridge I)^-1, for each group."""
    ridged = gram + ridge * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
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
