"""Put factorised layers in place of dense ones."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TypeGuard

import torch
from torch import Tensor, nn

from compress.calibration import LayerMoments
from compress.catalog import Row
from compress.errors import CompressError, PlanError, UnsupportedLayerError
from compress.layers import find_obstacles, layer_named, shape_of
from compress.load import FactorizedLayer, build_layer, replace_
from compress.methods.method import Decomposition
from compress.methods.registry import method_named
from compress.plan import Choice, Plan
from compress.shape import Stage


def factorize_(
    model: nn.Module, plan: Plan, moments: Mapping[str, LayerMoments] | None = None
) -> None:
    """Replace every layer that `plan` names, or none.

    Args:
        model: dense, or dense in the layers of the plan.
        plan: layer name -> method and ranks.
        moments: of each layer of the plan, for errors measured at the layer's output; without
            them the plain norm of the weight counts.

    Raises:
        CompressError: the plan names no layer, one that cannot be factorised, or ranks that it
            does not allow. The layer and its choice are in the notes; `model` is as it was.
    """
    obstacles = find_obstacles(model)
    replacements = {}
    for name, choice in plan:
        try:
            layer = layer_named(model, name)
            if name in obstacles:
                raise UnsupportedLayerError(obstacles[name])
            if moments is not None and name not in moments:
                raise PlanError(f"moments came for other layers, not for {name!r}")
            metric = None if moments is None else moments[name].second
            replacements[name] = factorized(layer, choice, metric)
        except CompressError as error:
            error.add_note(f"in layer {name!r} with {choice}")
            raise
    replace_(model, replacements)


def factorized(
    layer: nn.Module,
    choice: Choice,
    metric: Tensor | None = None,
    decomposition: Decomposition | None = None,
) -> FactorizedLayer:
    """Plain layers in a row that compute approximately what `layer` computes.

    They share no storage with `layer` or `decomposition`, and keep the layer's device, dtype,
    mode and which of weight and bias want gradients.

    Args:
        layer: a plain convolution, or a plain Linear.
        choice: method and ranks.
        metric: second moment of the layer's patches, see `LayerMoments`.
        decomposition: of this layer by this method, where it has been computed before.

    Raises:
        UnsupportedLayerError: the layer, or the method for this layer, cannot be used.
        RankError: a rank lies outside its bounds.
        CompressError: the decomposition does not converge.
    """
    if obstacle := find_obstacles(layer).get(""):
        raise UnsupportedLayerError(obstacle)
    shape, method = shape_of(layer), method_named(choice.method)
    weight = layer.get_parameter("weight")
    bias = layer.get_parameter("bias") if shape.bias else None
    stages = method.stages(shape, choice.ranks)
    try:
        if decomposition is None:
            decomposition = method.decompose(shape, weight.detach().double(), metric)
        factors = decomposition.factors(choice.ranks)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise CompressError(f"{choice.method} does not converge: {error}") from error
    state = {f"{stage}.weight": factor for stage, factor in factors.items()}
    if bias is not None:
        state[f"{stages[-1].name}.bias"] = bias
    result = build_layer(stage_rows(stages))
    result.load_state_dict({key: _copy(value, weight) for key, value in state.items()}, assign=True)
    for key, parameter in result.named_parameters():
        source = bias if bias is not None and key.endswith("bias") else weight
        parameter.requires_grad_(source.requires_grad)
    return result.train(layer.training)


def is_factorized(module: nn.Module) -> TypeGuard[FactorizedLayer]:
    """Whether the module stands in place of a dense layer."""
    return isinstance(module, FactorizedLayer)


def stage_rows(stages: Iterable[Stage]) -> list[Row]:
    """The stages as `load.build_layer` takes them."""
    return [Row(stage.name, stage.shape.type, asdict(stage.shape)) for stage in stages]


def _copy(value: Tensor, like: Tensor) -> Tensor:
    return torch.clone(value.detach().to(like), memory_format=torch.contiguous_format)
