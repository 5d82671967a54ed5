"""The network that a job is about: on its device, with its data, and all that is found once."""

import copy
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from compress.batch import accept_batches_
from compress.calibration import trace
from compress.flow import Flow
from compress.layers import inspect
from compress.load import replace_
from compress.plan import Plan
from compress.recurrent.guards import check_long_sequences
from compress.recurrent.opened import opened, uses
from compress.recurrent.weights import is_recurrent
from compress.reference import Reference
from compress.repair import repair_
from compress.shape import LayerShape, WeightShape
from compress.simplify import Simplification, simplify_
from compress.widths.narrower import Narrower
from search.baseline import Baseline, macs_of
from search.config import GRAPH_RUNTIMES, UNLABELLED, ConfigError, SearchConfig
from search.data.arrays import Arrays
from search.devices import find_device
from search.factors import Factors
from search.keeping import Kept
from search.measurement import Race, race
from search.metrics import Metrics, likelihood
from search.progress import Left, Report, endless, silent
from search.recovery.material import Material, check_recovery
from search.recovery.recovery import Recovered, recover_
from search.replacements import replacements
from search.runtimes.registry import runtime_of
from search.runtimes.runtime import Runtime
from search.samples import Samples, check_answers
from search.splits import make_splits

CALIBRATION_BATCH = 64
REPAIR_BATCHES = 4  # of calibration images: repair is part of every evaluation
KEPT_BYTES = 2**30  # of recovered networks, which are judged again at the end


class Subject:
    """A dense network with its splits, its traces and the factors of its layers."""

    def __init__(
        self,
        *,
        dense: nn.Module,
        architecture: dict[str, Any],
        config: SearchConfig,
        runtime: Runtime,
        device: torch.device,
        search: Samples,
        confirmation: Samples,
        calibration: list[Tensor],
        example: Tensor,
        material: Material | None = None,
        narrowed_from: "tuple[Subject, Mapping[str, int]] | None" = None,
    ) -> None:
        self.dense = dense
        self.architecture = architecture
        self.config = config
        self.runtime = runtime
        self.device = device
        self.search = search
        self.confirmation = confirmation
        self.calibration = calibration
        self.example = example  # (batch, C, H, W), the input that is timed
        self.layers = inspect(dense)
        self.opened = opened(dense)
        self.traces = trace(self.opened, example)
        self.uses = uses(dense, example)
        self.flow = Flow.of(dense, example)
        opponent = copy.deepcopy(dense)
        simplification = self.simplify_(opponent)
        self.not_simplified = simplification.reason
        self.opponent = opponent if simplification.changed else dense  # what candidates race
        self.parameters = sum(weight.numel() for weight in dense.parameters())
        self.baseline = self._measure()
        shapes = {report.name: report.shape for report in self.layers if report.shape is not None}
        most = config.limits.max_memory_bytes
        metrics = Metrics(
            self.opened,
            shapes,
            self.traces,
            calibration,
            importance=config.importance,
            likelihood=likelihood(config.budget.metric),
            max_memory_bytes=most,
        )
        self.factors = Factors(self.opened, shapes, metrics, most)
        self.material = material  # that candidates are trained on, if they are
        self.narrower = Narrower(dense, example, calibration[:REPAIR_BATCHES])
        self._narrowed_from = narrowed_from  # whose layers' outputs are to be met, at what widths
        self._narrowed: dict[tuple[tuple[str, int], ...], Subject] = {}
        self._reference: Reference | None = None
        self._repaired = Kept(most_bytes=0)
        self._assembled = Kept(most_bytes=KEPT_BYTES if material is not None else 0)
        self._recovered: dict[str, Recovered] = {}

    @classmethod
    def prepare(
        cls,
        model: nn.Module,
        arrays: Arrays,
        config: SearchConfig,
        architecture: dict[str, Any],
    ) -> Self:
        """Put a copy of the network on the device, split the data and measure the baseline.

        Args:
            model: the trained network; left as it is.
            arrays: what it is measured on.
            config: the whole order.
            architecture: what `compress.load.build_dense` rebuilds the network from.

        Raises:
            ConfigError: the runtime takes graphs, and the network several inputs; or candidates
                are to learn what the data do not allow, labels that did not come say.
            DataError: the data do not fit the network or the promise.
            DeviceError: cuda, or a runtime, was asked for and is not there.
            ExportError: the runtime takes graphs, and the network cannot be exported as one.
        """
        runtime = runtime_of(config.objective)
        if config.objective.runtime in GRAPH_RUNTIMES and len(arrays.inputs) > 1:
            raise ConfigError(
                f"runtime {runtime.name} came with data of {len(arrays.inputs)} inputs; it takes "
                "graphs of one input: choose runtime eager or compile"
            )
        metric = config.budget.metric
        splits = make_splits(arrays, needs_labels=metric not in UNLABELLED)
        check_recovery(config.recovery, arrays)
        device = find_device(config.objective.device, config.objective.runtime)
        dense = copy.deepcopy(model).to(device).eval().requires_grad_(False)
        if len(arrays.inputs) > 1:
            accept_batches_(dense)
        search, confirmation = (
            Samples(arrays, part, dense, device) for part in (splits.search, splits.confirmation)
        )
        check_answers(metric, search.dense_answers, arrays.labels)
        train = splits.calibration_is_training
        batch = config.objective.batch
        chosen = splits.calibration[torch.arange(batch) % len(splits.calibration)]
        return cls(
            dense=dense,
            architecture=architecture,
            config=config,
            runtime=runtime,
            device=device,
            search=search,
            confirmation=confirmation,
            calibration=[
                arrays.batch(part, device, train=train)
                for part in torch.split(splits.calibration, CALIBRATION_BATCH)
            ],
            example=arrays.batch(chosen, device, train=train),
            material=None
            if config.recovery.method == "none"
            else Material(
                arrays,
                splits.recovery,
                dense,
                device,
                train=train,
                augment=config.recovery.augment,
            ),
        )

    def shape(self, name: str) -> LayerShape:
        """The shape of a layer that can be factorised, or of a weight of a recurrent layer."""
        shape = next(report.shape for report in self.layers if report.name == name)
        assert shape is not None
        return shape

    def recurrent_layer(self, module: str) -> nn.RNNBase:
        """A recurrent layer of the dense network."""
        layer = self.dense.get_submodule(module)
        assert is_recurrent(layer)
        return layer

    def narrowed(self, widths: Mapping[str, int]) -> "Subject":
        """The same with a narrower dense network, which is judged by the answers of this one's.

        Args:
            widths: layer -> output channels; of none, the subject itself.

        Raises:
            CompressError: a layer cannot be narrowed so.
        """
        if not widths:
            return self
        key = tuple(sorted(widths.items()))
        if key not in self._narrowed:
            self._narrowed[key] = Subject(
                dense=self.narrower.network(widths),
                architecture=self.architecture,
                config=self.config,
                runtime=self.runtime,
                device=self.device,
                search=self.search,
                confirmation=self.confirmation,
                calibration=self.calibration,
                example=self.example,
                material=self.material,
                narrowed_from=(self, widths),
            )
        return self._narrowed[key]

    def assemble(self, plan: Plan, report: Report = silent, *, left: Left = endless) -> nn.Module:
        """The dense network narrowed, its layers factorised, repaired, recovered, simplified.

        The last one is kept, since it is asked for again when it is to be stored, and recovered
        ones as far as they fit, since they are judged again at the end: leave it as it is, or
        copy it. One that was recovered and is no longer there is recovered anew.

        Args:
            plan: of the layers to factorise.
            report: told how far recovery is.
            left: of the job, with which recovery ends at the latest.

        Returns:
            The network in eval mode.

        Raises:
            CompressError: the plan does not fit the network, a decomposition does not converge, or
                a recurrent layer is less stable than the dense one.
        """
        if plan.widths:
            narrow = self.narrowed(plan.widths)
            return narrow.assemble(Plan(plan.choices), report, left=left)
        kept = self._assembled.get(plan)
        if kept is None:
            if self.material is None:
                kept = self._mended(plan)
            else:
                kept = copy.deepcopy(self.repaired(plan))
                self._recovered[plan.to_json()] = recover_(
                    kept,
                    self.material,
                    likelihood(self.config.budget.metric),
                    self.config.recovery,
                    report,
                    seconds_left=left(),
                )
            check_long_sequences(self.dense, kept, self.uses)
            if self.not_simplified is None:
                self.simplify_(kept)
            self._assembled.put(plan, kept)
        return kept

    def recovered(self, plan: Plan) -> Recovered | None:
        """What recovery came to when the plan was assembled last; None if none was ordered."""
        subject = self.narrowed(plan.widths)
        return subject._recovered.get(Plan(plan.choices).to_json())

    def repaired(self, plan: Plan) -> nn.Module:
        """The dense network narrowed, its layers factorised, and repaired; in eval mode.

        What recovery begins with: the last one is kept, and to be left as it is.

        Raises:
            CompressError: the plan does not fit the network, or a decomposition does not converge.
        """
        if plan.widths:
            return self.narrowed(plan.widths).repaired(Plan(plan.choices))
        kept = self._repaired.get(plan)
        if kept is None:
            kept = self._mended(plan)
            self._repaired.put(plan, kept)
        return kept

    def _mended(self, plan: Plan) -> nn.Module:
        """A network of its own: factorised and repaired."""
        model = copy.deepcopy(self.dense)
        replace_(model, replacements(self.dense, self.factors, plan))
        repair_(model, plan, self._reference_for(plan))
        return model

    def simplify_(self, model: nn.Module) -> Simplification:
        """Simplify a network made from the dense one, as the order has it."""
        fold_norms = self.config.objective.fold_norms
        return simplify_(model, self.flow, self.calibration[0], fold_norms=fold_norms)

    def _reference_for(self, plan: Plan) -> Reference:
        """What repair is held against: asked anew only where a plan has a layer not asked about."""
        if self._narrowed_from is not None:
            whole, widths = self._narrowed_from
            return whole._reference_for(plan).part(whole.narrower.kept(widths))
        asked = self._reference.samples.keys() if self._reference is not None else set[str]()
        names = {
            name
            for name, _ in plan
            if name in self.traces and not isinstance(self.shape(name), WeightShape)
        }
        if self._reference is None or not names <= asked:
            batches = self.calibration[:REPAIR_BATCHES]
            self._reference = Reference.of(self.dense, names | asked, batches)
        return self._reference

    def race(
        self, candidates: Mapping[str, nn.Module], *, seconds: float, as_dense: bool = True
    ) -> Race:
        """Candidates against "dense", on the input and in the runtime that count.

        Args:
            candidates: by name, in eval mode, on the device.
            seconds: what the rounds may take together.
            as_dense: in the memory layout that is the dense network's best; else each in its own.
        """
        known = ("dense", *candidates) if as_dense else ("dense",)
        return race(
            {"dense": self.opponent, **candidates},
            self.example,
            runtime=self.runtime,
            seconds=seconds,
            layouts=dict.fromkeys(known, self.baseline.layout),
        )

    def _measure(self) -> Baseline:
        budget = self.config.budget
        values = self.search.dense_values(budget.metric)
        timed = race({"dense": self.opponent}, self.example, runtime=self.runtime)
        return Baseline(
            metric=budget.metric,
            value=budget.shown(float(values.mean())),
            samples=len(values),
            latency_ms=timed.timings["dense"],
            layout=timed.layouts["dense"],
            parameters=self.parameters,
            macs=macs_of(self.layers, self.traces),
        )
