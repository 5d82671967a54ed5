"""Put factorised layers in place of dense ones."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.calibration import LayerMoments, evaluating
from compress.catalog import Row
from compress.errors import CompressError, PlanError, UnsupportedLayerError
from compress.layers import (
    TOGETHER,
    find_obstacles,
    layer_named,
    shape_of,
    stands_in,
    tied_layers,
)
from compress.load import FactorizedLayer, Flat, Grid, build_layer, replace_
from compress.methods.method import Decomposition
from compress.methods.registry import method_named
from compress.metric import Metric
from compress.plan import Choice, Plan
from compress.recurrent.layer import Recurrent
from compress.recurrent.projection import Projection
from compress.recurrent.surgery import check_finite, copied
from compress.recurrent.surgery import factorize as factorize_recurrent
from compress.recurrent.weights import is_recurrent, joined, parted
from compress.shape import FlatShape, GridShape, Stage, StageShape, inputs_of, outputs_of
from compress.shrinkage import shrunk


def factorize_(
    model: nn.Module,
    plan: Plan,
    moments: Mapping[str, LayerMoments] | None = None,
    *,
    fold: bool = False,
) -> None:
    """Replace every layer that `plan` names, or none.

    All weights that it names of a recurrent layer, as MODULE.weight_hh_l0, are replaced at once. A
    layer under several names is replaced under all of them; layers that share their weight are
    factorised once, for the inputs of all of them, and share the factors.

    Args:
        model: dense, or dense in the layers of the plan.
        plan: layer name -> method and ranks.
        moments: of each layer of the plan, for errors measured at the layer's output; without
            them the plain norm of the weight counts. Those of a recurrent layer's weights are the
            moments of the network that `compress.recurrent.opened` makes of this one.
        fold: where a parametrisation computes a weight (weight norm, say), factorise the value
            that it has in eval mode. What replaces the layer has no parametrisation.

    Raises:
        CompressError: the plan has widths, names no layer, one that cannot be factorised, or ranks
            that it does not allow. The layer and its choice are in the notes; `model` is as it was.
    """
    if plan.widths:
        raise PlanError(
            f"a plan with widths of {sorted(plan.widths)} came: load.load(FOLDER, factory=...) "
            "narrows a network as it was, Narrower one by data"
        )
    obstacles, ties = find_obstacles(model, fold=fold), tied_layers(model)
    decompositions: dict[str, Decomposition] = {}  # of shared weights
    replacements: dict[str, nn.Module] = {}
    recurrent, plain = _recurrent_choices(model, plan)
    for name, choices in recurrent.items():
        with _noted(f"in layer {name!r}"):
            if name in obstacles:
                raise UnsupportedLayerError(obstacles[name])
            layer = layer_named(model, name)
            assert is_recurrent(layer)
            metrics = {
                weight: _metric(moments, [joined(name, weight)])
                for weight in choices
                if moments is not None
            }
            replacements[name], _ = factorize_recurrent(layer, choices, metrics)
    for name, choice in plain.items():
        with _noted(f"in layer {name!r} with {choice}"):
            layer = layer_named(model, name)
            if name in obstacles:
                raise UnsupportedLayerError(obstacles[name])
            if is_recurrent(layer):
                raise UnsupportedLayerError(
                    f"it is recurrent: name its weights, as {name}.weight_ih_l0"
                )
            layer = _unparametrized(layer)
            names = ties.get(name, (name,))
            if any(plan.choices.get(other) != choice for other in names):
                raise PlanError(f"{' and '.join(names)} share their weight: {TOGETHER}")
            metric = None if moments is None else _metric(moments, names)
            if len(names) == 1:
                replacements[name] = factorized(layer, choice, metric)
                continue
            if names[0] not in decompositions:
                decompositions[names[0]] = _decomposed(layer, choice, metric)
            known = decompositions[names[0]]
            replacements[name] = factorized(layer, choice, decomposition=known)
    replace_(model, replacements)


def with_projections(
    layer: nn.RNNBase, projections: Mapping[str, Projection], *, sharing: bool = False
) -> Recurrent:
    """A recurrent layer some of whose weights are projections, which it takes over.

    Its other values, device, dtype, mode and wishes for gradients are those of `layer`.

    Args:
        layer: of torch.
        projections: name of a weight -> what stands in for it.
        sharing: the other values are those of `layer` itself, not copies.

    Raises:
        WeightsError: one of its weights or biases is not finite.
    """
    check_finite(layer)
    return copied(layer, Recurrent, projections, sharing=sharing)


def _recurrent_choices(
    model: nn.Module, plan: Plan
) -> tuple[dict[str, dict[str, Choice]], dict[str, Choice]]:
    """Recurrent layer -> its weights' choices; and the choices of all other layers."""
    layers = {name for name, layer in model.named_modules() if is_recurrent(layer)}
    recurrent: dict[str, dict[str, Choice]] = defaultdict(dict)
    plain: dict[str, Choice] = {}
    for name, choice in plan:
        module, weight = parted(name)
        if module in layers and name not in layers:
            recurrent[module][weight] = choice
        else:
            plain[name] = choice
    return dict(recurrent), plain


@contextmanager
def _noted(note: str) -> Iterator[None]:
    """Add a note to an error of ours that passes through."""
    try:
        yield
    except CompressError as error:
        error.add_note(note)
        raise


def factorized(
    layer: nn.Module,
    choice: Choice,
    metric: Metric | Tensor | None = None,
    decomposition: Decomposition | None = None,
) -> FactorizedLayer:
    """Plain layers in a row that compute approximately what `layer` computes.

    They share no storage with `layer` or `decomposition`, and keep the layer's device, dtype,
    mode and which of weight and bias want gradients.

    Args:
        layer: a plain convolution, or a plain Linear.
        choice: method and ranks.
        metric: second moment of the layer's patches, see `LayerMoments`, or any other norm.
        decomposition: of this layer by this method, where it has been computed before.

    Raises:
        UnsupportedLayerError: the layer, or the method for this layer, cannot be used.
        RankError: a rank lies outside its bounds.
        CompressError: the decomposition does not converge.
    """
    if obstacle := find_obstacles(layer).get(""):
        raise UnsupportedLayerError(obstacle)
    shape = shape_of(layer)
    weight = layer.get_parameter("weight")
    bias = layer.get_parameter("bias") if shape.bias else None
    stages = method_named(choice.method).stages(shape, choice.ranks)
    try:
        if decomposition is None:
            decomposition = _decomposed(layer, choice, metric)
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
    """Whether the module is stages in place of a dense layer."""
    return stands_in(module) and isinstance(module, nn.Sequential)


def is_factorized_recurrent(module: nn.Module) -> TypeGuard[Recurrent]:
    """Whether the module stands in place of a recurrent layer of torch."""
    return stands_in(module) and hasattr(module, "description")


def stage_shape(module: nn.Module) -> StageShape:
    """The shape of a stage that was built.

    Raises:
        UnsupportedLayerError: it is none.
    """
    if isinstance(module, Grid):
        return GridShape(
            channels=module.channels, slices=module.slices, axes=module.axes, groups=module.groups
        )
    if isinstance(module, Flat):
        return FlatShape(
            channels=module.channels,
            slices=module.slices,
            axes=module.axes,
            groups=module.groups,
            bias=module.bias is not None,
        )
    return shape_of(module)


def ends_of(module: nn.Module) -> tuple[int, int] | None:
    """Channels or features, in and out, of a plain or factorised layer; None of other modules."""
    stages = list(module) if is_factorized(module) else [module]
    try:
        shapes = [stage_shape(stage) for stage in stages]
    except UnsupportedLayerError:
        return None
    return (inputs_of(shapes[0]), outputs_of(shapes[-1])) if shapes else None


def stage_rows(stages: Iterable[Stage]) -> list[Row]:
    """The stages as `load.build_layer` takes them."""
    return [Row(stage.name, stage.shape.type, asdict(stage.shape)) for stage in stages]


def _decomposed(layer: nn.Module, choice: Choice, metric: Metric | Tensor | None) -> Decomposition:
    weight = layer.get_parameter("weight").detach().double()
    return method_named(choice.method).decompose(shape_of(layer), weight, metric)


def _metric(moments: Mapping[str, LayerMoments], names: Sequence[str]) -> Tensor:
    """The second moment of what enters the layers `names`, which share a weight, together."""
    if missing := [name for name in names if name not in moments]:
        raise PlanError(f"moments came for other layers, not for {missing[0]!r}")
    if len(names) == 1:
        return moments[names[0]].metric
    count = sum(moments[name].count for name in names)
    parts = (moments[name].second * (moments[name].count / count) for name in names)
    return shrunk(torch.stack([*parts]).sum(0), count)


def _unparametrized(layer: nn.Module) -> nn.Module:
    """The layer, or a plain one of the values that its parametrisations compute in eval mode.

    Taken off a copy, a parametrisation would be off the layer too: torch keeps it in the class.
    """
    if not parametrize.is_parametrized(layer):
        return layer
    shape, computed = shape_of(layer), cast("nn.ModuleDict", layer.parametrizations)
    (plain,) = build_layer([Row("plain", shape.type, asdict(shape))])
    with evaluating(layer):
        for key, _ in list(plain.named_parameters()):
            value = getattr(layer, key).detach().clone()
            sources = computed[key].parameters() if key in computed else [getattr(layer, key)]
            wanted = any(source.requires_grad for source in sources)
            setattr(plain, key, nn.Parameter(value, wanted))
    return plain.train(layer.training)


def _copy(value: Tensor, like: Tensor) -> Tensor:
    return torch.clone(value.detach().to(like), memory_format=torch.contiguous_format)
