"""Mend a factorised network without labels: last factors, biases, then batch norm statistics.

The refit is the linear form of asymmetric reconstruction (Zhang et al., "Accelerating Very Deep
Convolutional Networks for Classification and Detection", 2016): each layer's last factor is fit
to the dense network's output from what the layers before it, already factorised, really give it.
Where a layer has too many weights for that, its bias alone is corrected (Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", 2019).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from compress.calibration import evaluating
from compress.errors import PlanError
from compress.folding import Norm
from compress.layers import layer_named
from compress.pieces import is_linear
from compress.plan import Plan
from compress.recurrent.weights import parted
from compress.reference import Reference
from compress.refit import Form, refit_
from compress.surgery import is_factorized, is_factorized_recurrent


@dataclass(frozen=True, slots=True)
class RepairReport:
    """Mean squared difference to the dense network's outputs on the calibration inputs."""

    error_before: float
    error_after: float
    refitted: tuple[str, ...]  # layers whose last factor changed
    corrected: tuple[str, ...]  # layers of which the bias alone changed
    norms_recalibrated: bool


def repair_(model: nn.Module, plan: Plan, reference: Reference) -> RepairReport:
    """Bring the outputs of `model` nearer to the reference; the same call, the same result.

    First the last factor and bias of each factorised layer, in forward order, by ridge
    regression; the ridge, or that the bias alone is corrected, is chosen, and a layer changed at
    all, by the error on inputs that were left out of the fit. Factors that layers share stay as
    they are, and so do last factors that serve several slices of the outputs, and weights of
    recurrent layers: what comes to one of them depends on what it gave.
    If that raises the error of the network's outputs, it is undone, and biases alone are tried.
    Then the running statistics of every batch norm, undone likewise.

    Args:
        model: factorised by `plan`, on the device of the reference.
        plan: names the layers to refit.
        reference: of the dense network, with samples of these layers; what it has no samples of
            is not refitted.

    Raises:
        PlanError: a layer of the plan is not factorised in `model`.
    """
    stages = {name: _last_stage(model, name) for name, _ in plan if not _is_weight(model, name)}
    stages = {
        name: stage
        for name, stage in stages.items()
        if name in reference.samples and is_linear(stage) and not _is_shared(stage, model)
    }
    norms = [m for m in model.modules() if isinstance(m, Norm) and m.track_running_stats]
    names = [name for name in reference.samples if name in stages]
    with evaluating(model):
        errors = [_output_error(model, reference)]

        def undone(before: Snapshot) -> bool:
            """Whether the outputs went farther off than at the last step that was kept."""
            error = _output_error(model, reference)
            if error <= errors[-1]:
                errors.append(error)
                return False
            _put_back_(before)
            return True

        def fitted(forms: Sequence[Form]) -> dict[str, Form]:
            before = _snapshot(stages.values())
            found = {name: refit_(model, stages[name], name, reference, forms) for name in names}
            changed = {name: form for name, form in found.items() if form is not None}
            return {} if changed and undone(before) else changed

        changed = fitted(("factor", "bias")) or fitted(("bias",))
        refitted, corrected = (
            tuple(name for name, form in changed.items() if form == wanted)
            for wanted in ("factor", "bias")
        )
        before = _snapshot(norms)
        recalibrated = _recalibrate_(model, norms, reference.batches) and not undone(before)
    return RepairReport(errors[0], errors[-1], refitted, corrected, recalibrated)


Snapshot = list[tuple[nn.Module, dict[str, Tensor]]]


def _snapshot(modules: Iterable[nn.Module]) -> Snapshot:
    return [(m, {key: value.clone() for key, value in m.state_dict().items()}) for m in modules]


def _put_back_(snapshot: Snapshot) -> None:
    for module, state in snapshot:
        module.load_state_dict(state)


def _is_weight(model: nn.Module, name: str) -> bool:
    """Whether it is that of a factorised weight of a recurrent layer."""
    module, weight = parted(name)
    layer = dict(model.named_modules()).get(module)
    if layer is None or not is_factorized_recurrent(layer):
        return False
    return weight in dict(layer.named_children())


def _last_stage(model: nn.Module, name: str) -> nn.Module:
    layer = layer_named(model, name)
    if not is_factorized(layer):
        raise PlanError(f"the plan names {name!r}, which is not factorised in the network")
    return layer[-1] if len(layer) else layer


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
