"""Which layers of a network can be factorised, and why the others cannot."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Final, cast

from torch import nn
from torch.nn.utils import parametrize

from compress.catalog import ALL_METHODS
from compress.errors import PlanError, UnsupportedLayerError
from compress.methods.groups import groups_of
from compress.methods.registry import METHODS
from compress.recurrent.methods import ONLY_OF_WEIGHTS
from compress.recurrent.methods import refusal as refusal_of_weight
from compress.recurrent.weights import RECURRENT, is_recurrent, joined, weights_of
from compress.shape import (
    ConvShape,
    LayerShape,
    LinearShape,
    Padding,
    TransposedShape,
    WeightShape,
)

TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
PLAIN: Final = (*CONVOLUTIONS, nn.Linear)  # what has a shape; a subclass may compute otherwise
TOGETHER: Final = "a plan must name all of them, with the same choice"


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One row of the account of a network's parameters: a layer, or one weight of a recurrent one.

    `reason` says why no method may touch the layer, None where at least one may; `refusals`
    holds each other method's reason.
    """

    name: str
    shape: LayerShape | None
    refusals: dict[str, str] = field(default_factory=dict)
    reason: str | None = None


def inspect(model: nn.Module) -> list[LayerReport]:
    """A row for every module that holds a parameter of its own, in the order of the network.

    A recurrent layer has a row for each weight, MODULE.WEIGHT.
    """
    obstacles = find_obstacles(model)
    for name, names in tied_layers(model).items():
        others = ", ".join(other for other in names if other != name)
        obstacles.setdefault(name, f"its weight is also that of {others}: {TOGETHER}")
    return [
        report
        for name, layer in _owners(model)
        for report in _reports(name, layer, obstacles.get(name))
    ]


def refusal(method: str, shape: LayerShape) -> str | None:
    """Why a method cannot be used for a layer or a weight of this shape; None if it may."""
    if isinstance(shape, WeightShape):
        return refusal_of_weight(method, shape)
    return METHODS[method].refusal(shape) if method in METHODS else ONLY_OF_WEIGHTS


def shape_of(layer: nn.Module) -> LayerShape:
    """What the layer computes, weights aside.

    Raises:
        UnsupportedLayerError: it is no plain convolution and no plain Linear.
    """
    plain = is_plain(layer)
    if plain and isinstance(layer, CONVOLUTIONS):
        shape = ConvShape(
            in_channels=layer.in_channels,
            out_channels=layer.out_channels,
            kernel_size=layer.kernel_size,
            stride=layer.stride,
            padding=cast("Padding", layer.padding),
            dilation=layer.dilation,
            groups=layer.groups,
            padding_mode=layer.padding_mode,
            bias=layer.bias is not None,
        )
        if isinstance(layer, TRANSPOSED):
            return TransposedShape(**asdict(shape), output_padding=layer.output_padding)
        return shape
    if plain and isinstance(layer, nn.Linear):
        return LinearShape(
            in_features=layer.in_features,
            out_features=layer.out_features,
            bias=layer.bias is not None,
        )
    raise UnsupportedLayerError(f"{_kind(layer)}, a plain convolution or Linear was wanted")


def is_plain(layer: nn.Module) -> bool:
    """Whether the layer computes what its torch class computes, weights aside."""
    return parametrize.type_before_parametrizations(layer) in PLAIN


def stands_in(module: nn.Module) -> bool:
    """Whether the module stands in place of a dense layer, whichever `load.py` it was built by."""
    return getattr(module, "stands_in", False) is True


def layer_named(model: nn.Module, name: str) -> nn.Module:
    """The layer of that name.

    Raises:
        PlanError: there is none, or `name` is a second name of a layer that is shared.
    """
    layers = dict(model.named_modules())
    if name not in layers:
        raise PlanError(f"{type(model).__name__} has no layer {name!r} of its own")
    return layers[name]


def find_obstacles(model: nn.Module, *, fold: bool = False) -> dict[str, str]:
    """The layers that cannot be replaced whatever the method: name -> reason.

    Args:
        model: any network.
        fold: computed weights are no obstacle: their present values may stand in for them.
    """
    ties, holders = tied_layers(model), _holders(model)
    obstacles = {}
    for name, layer in _owners(model):
        inside = f"{name}." if name else ""
        others = {
            other
            for parameter in layer.parameters()
            for other in holders[parameter]
            if other not in ties.get(name, (name,)) and not other.startswith(inside)
        }
        if reason := next(_obstacles(layer, fold), None):
            obstacles[name] = reason
        elif others:
            obstacles[name] = f"its parameters are also those of {', '.join(sorted(others))}"
    return obstacles


def tied_layers(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The layers that share one weight and can be factorised together: name -> all their names.

    A layer that stands under several names is one layer, and not here.
    """
    ties = {}
    shapes = {n: shape_of(m) for n, m in model.named_modules() if is_plain(m)}
    for parameter, names in _holders(model).items():
        tied = tuple(
            name
            for name in names
            if name in shapes and model.get_submodule(name)._parameters.get("weight") is parameter
        )
        forms = {(shapes[name].type, groups_of(shapes[name])) for name in tied}
        if len(tied) > 1 and len(tied) == len(names) and len(forms) == 1:
            ties.update(dict.fromkeys(tied, tied))
    return ties


def _holders(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Parameter -> the modules that hold it, each by its first name."""
    holders: dict[nn.Parameter, list[str]] = defaultdict(list)
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            holders[parameter].append(name)
    return holders


def _obstacles(layer: nn.Module, fold: bool) -> Iterator[str]:
    """Reasons that the layer alone gives; the first is the one to tell."""
    if stands_in(layer):
        yield "it is factorised already"
    if isinstance(layer, nn.Embedding):
        yield f"{_kind(layer)}: it looks rows up and multiplies nothing, so nothing is faster"
    elif isinstance(layer, nn.RNNBase):
        yield from _obstacles_of_recurrent(layer)
    elif not isinstance(layer, PLAIN):
        yield f"{_kind(layer)}: only convolutions, Linear and recurrent layers are factorised"
    elif not is_plain(layer):
        yield f"{_kind(layer)}: its forward, or a parent, may use the weight in its own way"
    elif parametrize.is_parametrized(layer):
        if not fold:
            yield (
                "its weight is computed by a parametrisation: remove that, or let factorize_ take "
                "the present value with fold=True"
            )
    elif "weight" not in dict(layer.named_parameters(recurse=False)):
        yield "its weight is computed from other parameters: remove the weight norm first"
    elif not layer.weight.is_floating_point():
        yield f"its weight is {layer.weight.dtype}, real floating point was wanted"


def _obstacles_of_recurrent(layer: nn.RNNBase) -> Iterator[str]:
    if parametrize.is_parametrized(layer):
        yield "its weights are computed by a parametrisation: remove that first"
    elif not is_recurrent(layer):
        yield f"{_kind(layer)}: its forward may use the weights in its own way"
    elif set(layer._flat_weights_names) != dict(layer.named_parameters(recurse=False)).keys():
        yield "its weights are computed from other parameters: remove the weight norm first"
    elif not layer.get_parameter("weight_ih_l0").is_floating_point():
        yield "its weights are complex, real floating point was wanted"


def _reports(name: str, layer: nn.Module, obstacle: str | None) -> Iterator[LayerReport]:
    if is_recurrent(layer):
        for weight, shape in weights_of(layer).items():
            yield _report(joined(name, weight), shape, obstacle)
    else:
        yield _report(name, shape_of(layer) if is_plain(layer) else None, obstacle)


def _report(name: str, shape: LayerShape | None, obstacle: str | None) -> LayerReport:
    if obstacle is not None or shape is None:
        return LayerReport(name, shape, reason=obstacle)
    methods = ALL_METHODS if isinstance(shape, WeightShape) else METHODS
    answers = {method: refusal(method, shape) for method in methods}
    refusals = {method: reason for method, reason in answers.items() if reason is not None}
    reason = None
    if len(refusals) == len(methods):
        reason = "; ".join(f"{method}: {refusal}" for method, refusal in refusals.items())
    return LayerReport(name, shape, refusals, reason)


def _owners(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules with parameters of their own; a factorised or parametrised layer is one."""
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            continue
        if stands_in(module):
            inside += (f"{name}." if name else "",)
            yield name, module
        elif parametrize.is_parametrized(module):
            inside += (f"{name}.parametrizations".removeprefix("."),)
            yield name, module
        elif any(True for _ in module.parameters(recurse=False)):
            yield name, module


def _kind(layer: nn.Module) -> str:
    kind = parametrize.type_before_parametrizations(layer).__name__
    bases = [base.__name__ for base in (*PLAIN, *RECURRENT) if isinstance(layer, base)]
    return f"{kind}, a subclass of {bases[0]}" if bases and kind not in bases else kind
