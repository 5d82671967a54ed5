"""Which layer of torch an operator on a network's own tensors is.

An operator that is no layer, or one whose settings or tensors are computed, stays a call.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from torch import Tensor, nn

from compress.program.arguments import Reference, Value
from compress.program.calls import MAX_LAYERS


@dataclass(frozen=True, slots=True)
class Recipe:
    """A layer to be."""

    kind: type[nn.Module]
    settings: Mapping[str, Any]
    inputs: tuple[Value, ...]
    """What it is called with."""
    tensors: Mapping[str, str]
    """Its own names of its tensors -> the names of values."""
    initial: Value = None
    """The state that a recurrent layer begins with: it makes one itself where that is zero."""


@dataclass(frozen=True, slots=True)
class Call:
    """A node of which a layer may be made."""

    name: str
    """The operator's, without overload."""
    arguments: Mapping[str, Any]
    """By name, with the schema's defaults."""
    tensors: Mapping[str, Tensor]
    """Of the network, by the names of values."""
    axes: int
    """Of the first result."""

    def owned(self, *names: str) -> dict[str, str]:
        """The network's tensors among these arguments; none where one of them is computed."""
        given = {name: self.arguments[name] for name in names if self.arguments[name] is not None}
        if all(type(value) is Reference and value.name in self.tensors for value in given.values()):
            return {name: value.name for name, value in given.items()}
        return {}

    def shape(self, name: str) -> tuple[int, ...]:
        """That of the tensor an argument refers to."""
        return tuple(self.tensors[self.arguments[name].name].shape)


def recipe_of(call: Call) -> Recipe | None:
    """The layer that a node is, or None."""
    if call.name not in RECIPES:
        return None
    recipe = RECIPES[call.name](call)
    if recipe is None or any(_is_computed(setting) for setting in recipe.settings.values()):
        return None
    return recipe


def _convolution(call: Call) -> Recipe | None:
    owned, groups = call.owned("weight", "bias"), call.arguments["groups"]
    if "weight" not in owned or len(call.shape("weight")) != call.axes or type(groups) is not int:
        return None
    outer, inner, *size = call.shape("weight")
    inputs, outputs = inner * groups, outer
    if "transpose" in call.name:
        inputs, outputs = outer, inner * groups
    steps = {
        name: value * len(size) if isinstance(value, tuple) and len(value) == 1 else value
        for name, value in call.arguments.items()
        if name in ("stride", "padding", "dilation", "output_padding")
    }
    settings = {
        "in_channels": inputs,
        "out_channels": outputs,
        "kernel_size": tuple(size),
        "groups": groups,
        "bias": "bias" in owned,
        **steps,
    }
    return Recipe(CONVOLUTIONS[call.name], settings, (call.arguments["input"],), owned)


def _linear(call: Call) -> Recipe | None:
    owned = call.owned("weight", "bias")
    if "weight" not in owned or len(call.shape("weight")) != 2:
        return None
    outputs, inputs = call.shape("weight")
    settings = {"in_features": inputs, "out_features": outputs, "bias": "bias" in owned}
    return Recipe(nn.Linear, settings, (call.arguments["input"],), owned)


def _embedding(call: Call) -> Recipe | None:
    owned, padding = call.owned("weight"), call.arguments["padding_idx"]
    if not owned or len(call.shape("weight")) != 2:
        return None
    rows, width = call.shape("weight")
    settings = {
        "num_embeddings": rows,
        "embedding_dim": width,
        "padding_idx": None if padding == -1 else padding,
        "scale_grad_by_freq": call.arguments["scale_grad_by_freq"],
        "sparse": call.arguments["sparse"],
    }
    return Recipe(nn.Embedding, settings, (call.arguments["indices"],), owned)


def _norm_with_statistics(call: Call) -> Recipe | None:
    owned = call.owned("weight", "bias", "running_mean", "running_var")
    affine, tracked = "weight" in owned, "running_mean" in owned
    kind = STATISTICS[call.name].get(call.axes)
    if (
        kind is None
        or not owned
        or affine != ("bias" in owned)
        or tracked != ("running_var" in owned)
    ):
        return None
    settings = {
        "num_features": call.shape(next(iter(owned)))[0],
        "eps": call.arguments["eps"],
        "momentum": call.arguments["momentum"],
        "affine": affine,
        "track_running_stats": tracked,
    }
    return Recipe(kind, settings, (call.arguments["input"],), owned)


def _group_norm(call: Call) -> Recipe | None:
    owned = call.owned("weight", "bias")
    if len(owned) != 2:
        return None
    settings = {
        "num_groups": call.arguments["num_groups"],
        "num_channels": call.shape("weight")[0],
        "eps": call.arguments["eps"],
    }
    return Recipe(nn.GroupNorm, settings, (call.arguments["input"],), owned)


def _layer_norm(call: Call) -> Recipe | None:
    owned = call.owned("weight", "bias")
    if "weight" not in owned:
        return None
    shape = call.arguments["normalized_shape"]
    settings = {"normalized_shape": shape, "eps": call.arguments["eps"], "bias": "bias" in owned}
    return Recipe(nn.LayerNorm, settings, (call.arguments["input"],), owned)


def _rms_norm(call: Call) -> Recipe | None:
    if not (owned := call.owned("weight")):
        return None
    settings = {name: call.arguments[name] for name in ("normalized_shape", "eps")}
    return Recipe(nn.RMSNorm, settings, (call.arguments["input"],), owned)


def _prelu(call: Call) -> Recipe | None:
    if not (owned := call.owned("weight")):
        return None
    settings = {"num_parameters": call.shape("weight")[0]}
    return Recipe(nn.PReLU, settings, (call.arguments["self"],), owned)


def _dropout(call: Call) -> Recipe | None:
    in_place = call.name.endswith("_")
    name = call.name.removesuffix("_")
    kind = CHANNEL_DROPOUTS.get(call.axes) if name == "feature_dropout" else DROPOUTS[name]
    if kind is None:
        return None
    x = call.arguments["self" if in_place else "input"]
    return Recipe(kind, {"p": call.arguments["p"], "inplace": in_place}, (x,), {})


def _recurrent(call: Call) -> Recipe | None:
    names = _recurrent_names(call)
    values = call.arguments["params"]
    if names is None or any(value.name not in call.tensors for value in values):
        return None
    owned = {name: value.name for name, value in zip(names, values, strict=True)}
    shapes = {name: tuple(call.tensors[value].shape) for name, value in owned.items()}
    if any(not shape for shape in shapes.values()):
        return None
    kind, gates = RECURRENT[call.name]
    settings = {
        "input_size": shapes["weight_ih_l0"][-1],
        "hidden_size": shapes["weight_ih_l0"][0] // gates,
        "num_layers": call.arguments["num_layers"],
        "bias": call.arguments["has_biases"],
        "batch_first": call.arguments["batch_first"],
        "dropout": call.arguments["dropout"],
        "bidirectional": call.arguments["bidirectional"],
    }
    if "weight_hr_l0" in shapes:
        settings["proj_size"] = shapes["weight_hr_l0"][0]
    if kind is nn.RNN:
        settings["nonlinearity"] = call.name.removeprefix("rnn_")
    return Recipe(kind, settings, (call.arguments["input"],), owned, call.arguments["hx"])


def _recurrent_names(call: Call) -> list[str] | None:
    """What torch names the parameters, in the order in which the operator takes them."""
    layers, values = call.arguments["num_layers"], call.arguments["params"]
    if type(layers) is not int or not 0 < layers <= MAX_LAYERS:
        return None
    ways = ("", "_reverse") if call.arguments["bidirectional"] else ("",)
    parts = ["weight_ih", "weight_hh"]
    if call.arguments["has_biases"]:
        parts += ["bias_ih", "bias_hh"]
    if len(values) == layers * len(ways) * (len(parts) + 1):
        parts.append("weight_hr")
    names = [f"{part}_l{n}{way}" for n, way, part in product(range(layers), ways, parts)]
    return names if len(names) == len(values) else None


def _is_computed(setting: Any) -> bool:
    if isinstance(setting, tuple):
        return any(_is_computed(entry) for entry in setting)
    return isinstance(setting, Reference)


CONVOLUTIONS: Final = {
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d": nn.ConvTranspose2d,
    "conv_transpose3d": nn.ConvTranspose3d,
}
# By the axes of what they normalise.
STATISTICS: Final[Mapping[str, Mapping[int, type[nn.Module]]]] = {
    "batch_norm": {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d},
    "instance_norm": {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d},
}
CHANNEL_DROPOUTS: Final = {3: nn.Dropout1d, 4: nn.Dropout2d, 5: nn.Dropout3d}
DROPOUTS: Final = {
    "dropout": nn.Dropout,
    "alpha_dropout": nn.AlphaDropout,
    "feature_alpha_dropout": nn.FeatureAlphaDropout,
}
# With the gates that their weights hold.
RECURRENT: Final = {
    "lstm": (nn.LSTM, 4),
    "gru": (nn.GRU, 3),
    "rnn_tanh": (nn.RNN, 1),
    "rnn_relu": (nn.RNN, 1),
}
RECIPES: Final[Mapping[str, Callable[[Call], Recipe | None]]] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(STATISTICS, _norm_with_statistics),
    **dict.fromkeys(RECURRENT, _recurrent),
    **dict.fromkeys(("dropout", "dropout_", "feature_dropout", "feature_dropout_"), _dropout),
    **dict.fromkeys(("alpha_dropout", "feature_alpha_dropout"), _dropout),
    "embedding": _embedding,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "prelu": _prelu,
    "rms_norm": _rms_norm,
}
