"""Fit the last factor of a layer, or its bias, to what the dense layer puts out."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from compress.calibration import watching, windows
from compress.kernels import kernel_of, kernel_size, weight_of
from compress.layers import shape_of
from compress.methods.groups import groups_of
from compress.reference import Reference
from compress.shape import ConvShape

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # relative to the mean square of each regressor

Form = Literal["factor", "bias"]  # what is fitted: weight and bias of the last factor, or the bias


def refit_(
    model: nn.Module, stage: nn.Module, name: str, reference: Reference, forms: Sequence[Form]
) -> Form | None:
    """Refit the last stage of a layer in the form that helps inputs left out of the fit most.

    None, and no change, where no form helps them.

    With h what enters the stage (a 1 for the bias appended) and r what its output lacks of the
    dense layer's, the change of [weight, bias] is E[r h^T] (E[h h^T] + ridge)^-1: of each group by
    itself. Of the bias alone, h is the 1.
    """
    shape, weight = shape_of(stage), stage.get_parameter("weight")
    forms = [form for form in forms if form == "factor" or shape.bias]
    if not forms:
        return None
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

    columns = {"factor": slice(None), "bias": slice(-1, None)}

    def fit(parts: Sequence[int], form: Form, ridge: float) -> Tensor:
        """The change, zero but for the columns of the form, by the inputs of `parts`."""
        found, chosen = torch.zeros_like(cross[0]), columns[form]
        ridged = gram[..., chosen, chosen][parts].sum(0)
        ridged += ridge * len(parts) / 2 * torch.eye(ridged.shape[-1]).to(ridged)
        wanted = cross[..., chosen][parts].sum(0)
        found[..., chosen] = torch.linalg.solve(ridged, wanted, left=False)
        return found

    def left_out(way: tuple[Form, float]) -> float:
        """Change of the squared error on each half of the inputs by a fit to the other half."""
        error = 0.0
        for part, test in ((0, 1), (1, 0)):
            change = fit([part], *way)
            error += float((change * (change @ gram[test] - 2 * cross[test])).sum())
        return error

    errors = {way: left_out(way) for way in product(forms, RIDGES)}
    form, ridge = min(errors, key=errors.__getitem__)
    if not errors[form, ridge] < 0:
        return None
    change = (fit([0, 1], form, ridge) / scale).to(exact)
    if shape.bias:
        stage.get_parameter("bias").add_(change[..., -1].flatten())
        change = change[..., :-1]
    weight.add_(weight_of(shape, change.reshape(outputs, *rest)))
    return form


def _grouped(rows: Tensor, groups: int) -> Tensor:
    """(K, channels, ...) as (G, K, values of a group)."""
    return rows.reshape(len(rows), groups, -1).transpose(0, 1)


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
