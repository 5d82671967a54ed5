"""From a network to the choice table: what each layer could be, how fast that is, what it loses.

Timing comes first, with whatever values a layer is born with: time does not depend on them, and
factors are computed only for what is cheaper than dense on this device. What a form costs is the
objective's to say: where MACs are minimised, one of fewer MACs is tried though it is slower.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from torch import Tensor

from compress.errors import CompressError, RankError
from compress.kernels import kernel_of
from compress.layers import refusal
from compress.methods.groups import groups_of
from compress.plan import Choice
from compress.recurrent.weights import parted
from compress.shape import WeightShape
from search.config import ConfigError, SearchConfig
from search.containment import contains
from search.layer_forms import time_forms
from search.metrics import likelihood
from search.pareto import front
from search.progress import Report
from search.subject import Subject
from search.table import ChoiceRow, ChoiceTable, LayerRow
from search.vbmf import evbmf_rank
from search.weight_forms import WeightForms, time_weights
from search.wording import Words, words_of

GAIN = 0.97  # of the dense layer's cost: a lesser gain is noise, or not worth its loss
STEP = 0.87  # of the cost of a form that can do the same and more: closer ones are not computed
# The same for CP, and for weights that are folded into modes: their factors cost seconds for each
# rank anew, the most at the greatest ranks.
SLOW_GAIN = 0.6
SLOW_STEP = 0.75
VBMF_WORK = 5e9  # multiply-adds of a singular value decomposition that takes a few seconds
TIMING_SHARE = 0.3  # of the analysis, in the progress that is reported


def analyse(
    subject: Subject,
    config: SearchConfig,
    report: Report,
    table: ChoiceTable | None = None,
) -> ChoiceTable:
    """Time every form of every layer, and predict the loss of those that are cheaper than dense.

    A layer of which no other form is left is kept dense, with a sentence that says why.

    Args:
        subject: the network; the moments of its layers are collected here.
        config: methods, excluded layers, what is minimised and the circumstances of the timing.
        report: told how far the analysis is.
        table: without layers, of the network that costs are shares of; by default the subject's.

    Raises:
        ConfigError: a layer is excluded that the network does not have, or modes came for a weight
            that it does not have, or that has other sizes.
    """
    _check_modes(subject, config)
    kept_dense, words = _obstacles(subject, config), words_of(config.objective)
    table = replace(table or empty_table(subject, config), kept_dense=kept_dense)
    names = [name for name in subject.traces if name not in kept_dense]
    dense_rows: dict[str, ChoiceRow] = {}
    forms: dict[str, list[ChoiceRow]] = {}
    of_weights: dict[str, WeightForms] = {}
    for i, name in enumerate(names):
        report(TIMING_SHARE * i / len(names), f"timing the forms of {name}")
        if subject.factors.is_weight(name):
            if name not in of_weights:
                of_weights |= _time_layer(subject, config, parted(name)[0], names)
            dense_rows[name], found = of_weights[name].dense, of_weights[name].others
        else:
            dense_rows[name], found = time_forms(subject, config, name)
        forms[name] = _worthwhile(table, dense_rows[name], found)
        if forms[name]:
            continue
        if name in of_weights and config.objective.minimise == "latency":
            kept_dense[name] = of_weights[name].told
        else:
            kept_dense[name] = _why_none(table, dense_rows[name], found, words)
    names = [name for name in names if forms[name]]
    report(TIMING_SHARE, "collecting the inputs of the layers")
    subject.factors.collect(names)
    layers = []
    done, total = 0, sum(len(forms[name]) for name in names)
    for name in names:
        rows = [dense_rows[name]]
        for form in forms[name]:
            fraction = TIMING_SHARE + (1 - TIMING_SHARE) * done / total
            report(fraction, f"decomposing {name} by {form.choice}")
            rows += _predict(subject, name, form)
            done += 1
        rows = _unbeaten(table, rows)
        subject.factors.settle(name, [row.choice for row in rows if row.choice is not None])
        if len(rows) == 1:
            kept_dense[name] = f"none of its {words.cheaper} forms could be computed"
            continue
        shape, weight = (
            subject.shape(name),
            subject.opened.get_submodule(name).get_parameter("weight"),
        )
        kernel = kernel_of(shape, weight)
        vbmf = _nearest_vbmf(kernel, rows) if groups_of(shape) == 1 else None
        layers.append(LayerRow(name=name, choices=tuple(rows), vbmf=vbmf))
    said = f"{len(layers)} layers have {words.cheaper} forms, {len(kept_dense)} are kept dense"
    report(1.0, said)
    return replace(table, layers=tuple(layers))


def empty_table(subject: Subject, config: SearchConfig) -> ChoiceTable:
    """A table of the subject's dense network, without layers."""
    return ChoiceTable(
        layers=(),
        dense_latency_ms=subject.baseline.latency_ms.p50_ms,
        dense_parameters=subject.baseline.parameters,
        dense_macs=subject.baseline.macs,
        kept_dense={},
        weights=config.objective.minimised,
    )


def table_key(
    model_sha256: str,
    dataset_digest: str,
    config: SearchConfig,
    device: str,
    versions: Mapping[str, str],
) -> str:
    """What a table may be kept under: the digest of everything that it depends on.

    Args:
        model_sha256: of the network's weights.
        dataset_digest: of the data, whose calibration images the predicted losses come from.
        config: its methods, excluded layers, importance, memory and objective count; budget
            and strategy do not, but for what the budget's metric takes the answers for.
        device: by the name of the very hardware.
        versions: of torch and of whatever else computes.
    """
    document = {
        "model": model_sha256,
        "dataset": dataset_digest,
        "methods": sorted(config.methods),
        "exclude": sorted(config.exclude),
        "modes": sorted(map(repr, config.modes)),
        "importance": config.importance,
        "widths": config.widths,
        "likelihood": likelihood(config.budget.metric),
        "objective": asdict(config.objective),
        "max_memory_bytes": config.limits.max_memory_bytes,
        "device": device,
        "versions": dict(versions),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _obstacles(subject: Subject, config: SearchConfig) -> dict[str, str]:
    """The layers that nothing is tried on, with the reason, in the order of the network."""
    known = {layer.name for layer in subject.layers}
    if unknown := sorted(set(config.exclude) - known):
        raise ConfigError(f"exclude {unknown} came, layers of the network were wanted")
    reasons = {}
    for layer in subject.layers:
        if layer.name in config.exclude:
            reasons[layer.name] = "excluded by the order"
        elif layer.reason is not None:
            reasons[layer.name] = layer.reason
        elif layer.name not in subject.traces:
            reasons[layer.name] = "never called as a layer: its weight is read elsewhere"
        else:
            refusals = {
                method: refusal(method, subject.shape(layer.name)) for method in config.methods
            }
            if all(refusals.values()):
                told = (f"{method}: {reason}" for method, reason in refusals.items())
                reasons[layer.name] = "; ".join(told)
    return reasons


def _check_modes(subject: Subject, config: SearchConfig) -> None:
    shapes = {layer.name: layer.shape for layer in subject.layers}
    for each in config.modes:
        shape = shapes.get(each.weight)
        if not isinstance(shape, WeightShape):
            known = [name for name, other in shapes.items() if isinstance(other, WeightShape)]
            raise ConfigError(
                f"modes of {each.weight!r} came, weights of recurrent layers were wanted: the "
                f"network has {known}"
            )
        try:
            each.modes.check(shape.out_features, shape.in_features)
        except RankError as error:
            raise ConfigError(f"of {each.weight}: {error}") from error


def _time_layer(
    subject: Subject, config: SearchConfig, module: str, names: Sequence[str]
) -> dict[str, WeightForms]:
    """The forms of those weights of a recurrent layer that nothing keeps dense."""
    weights = [parted(name) for name in names]
    return time_weights(subject, config, module, [own for of, own in weights if of == module])


def _worthwhile(
    table: ChoiceTable, dense: ChoiceRow, forms: Sequence[ChoiceRow]
) -> list[ChoiceRow]:
    """Those clearly cheaper than dense, and than every kept form that can do the same and more.

    Factors are computed for these alone: the others would lose more for as much.
    """
    kept: list[tuple[Choice, float]] = []
    worthwhile: list[ChoiceRow] = []
    for form in sorted(forms, key=lambda form: -form.parameters):
        assert form.choice is not None
        is_slow = form.choice.method in ("cp3", "cp4") or form.choice.modes is not None
        gain, step = (SLOW_GAIN, SLOW_STEP) if is_slow else (GAIN, STEP)
        limits = [step * cost for choice, cost in kept if contains(choice, form.choice)]
        cost = table.row_cost(form)
        if cost < min([gain * table.row_cost(dense), *limits]):
            kept.append((form.choice, cost))
            worthwhile.append(form)
    return worthwhile


def _predict(subject: Subject, name: str, form: ChoiceRow) -> list[ChoiceRow]:
    """The form with its predicted loss; none if its factors cannot be computed."""
    assert form.choice is not None
    try:
        loss = subject.factors.loss(name, form.choice)
    except CompressError:
        return []
    return [replace(form, loss=loss)] if math.isfinite(loss) else []


def _unbeaten(table: ChoiceTable, rows: Sequence[ChoiceRow]) -> list[ChoiceRow]:
    """Those of which no other is as exact and as cheap, by falling parameters; dense is first."""
    found = front(rows, lambda row: (row.loss, table.row_cost(row)))
    return sorted(found, key=lambda row: (row.choice is not None, -row.parameters))


def _nearest_vbmf(weight: Tensor, rows: Sequence[ChoiceRow]) -> int | None:
    """The choice nearest to the ranks at which both unfoldings of the weight rise from noise.

    Of the methods, the one that these ranks are meant for: Tucker-2 as in Kim et al. 2016, else
    those of a single rank, which is compared with the unfolding to outputs.
    """
    unfoldings = [weight.detach().cpu().transpose(0, mode).flatten(1).numpy() for mode in (0, 1)]
    if unfoldings[0].size * min(unfoldings[0].shape) > VBMF_WORK:
        return None
    wanted = [evbmf_rank(unfolding) for unfolding in unfoldings]
    if 0 in wanted:
        return None
    for method in ("tucker2", "svd", "spatial_svd"):
        distances = {
            i: sum(
                abs(math.log(rank / target))
                for rank, target in zip(row.choice.ranks, wanted, strict=False)
            )
            for i, row in enumerate(rows)
            if row.choice is not None and row.choice.method == method
        }
        if distances:
            return min(distances, key=lambda i: distances[i])
    return None


def _why_none(
    table: ChoiceTable, dense: ChoiceRow, forms: Sequence[ChoiceRow], words: Words
) -> str:
    if not forms:
        return "no method has ranks on the grid that are cheaper than the dense layer"
    best = min(forms, key=table.row_cost)
    return (
        f"nothing was {words.cheaper}: the best form, {best.choice}, takes "
        f"{100 * table.row_cost(best) / table.row_cost(dense):.0f} % of the dense layer's "
        f"{words.noun}"
    )
