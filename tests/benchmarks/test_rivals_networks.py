"""What the rivals make of a small network, and what an evaluation of it says."""

import time

import pytest
import torch

from benchmarks.rivals import clock, jacobgil
from benchmarks.rivals.clock import cpu_clock
from benchmarks.rivals.delivery import delivered
from benchmarks.rivals.energy import energies_of
from benchmarks.rivals.evaluation import Networks, Points
from benchmarks.rivals.journal import Journal
from compress.plan import Choice
from compress.surgery import is_factorized
from search import layer_forms, measurement, stopwatch
from search import subject as subject_module
from search.analysis import analyse
from search.config import Budget, Objective, SearchConfig
from search.data.arrays import Arrays
from search.stopwatch import Stopwatch
from search.subject import Subject
from search.table import ChoiceTable, LayerRow
from search.vbmf import evbmf_rank
from tests.search.subjects import size_of, small, weighed_layers, weighed_race
from tests.search.tables import row, timed


@pytest.fixture(autouse=True)
def no_timing(monkeypatch):
    """Networks take as long as they have parameters."""
    monkeypatch.setattr(layer_forms, "time_layers", weighed_layers)
    monkeypatch.setattr(subject_module, "race", weighed_race)


CONFIG = SearchConfig(
    budget=Budget(max_loss=20, unit="points", metric="agreement", confidence=None),
    objective=Objective(device="cpu"),
    methods=("svd",),
)


@pytest.fixture(scope="module")
def arrays():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(200, 3, 8, 8, generator=generator)
    return Arrays.of_images(x, train_images=torch.randn(64, 3, 8, 8, generator=generator))


@pytest.fixture
def subject(arrays):
    return Subject.prepare(small(), arrays, CONFIG, {})


@pytest.fixture
def pruning():
    pytest.importorskip("torch_pruning")
    from benchmarks.rivals import pruning  # noqa: PLC0415 (the package may not be there)

    return pruning


def test_points_and_networks_are_evaluated_once_and_alike(subject, tmp_path):
    table = analyse(subject, CONFIG, lambda *_: None)
    journal = Journal(tmp_path / "small.jsonl")
    points = Points(subject, table, journal)
    point = tuple(size - 1 for size in table.sizes)
    costs, seconds = points(point)
    assert seconds > 0
    assert points(point) == (costs, pytest.approx(seconds, abs=1e-4))
    assert len(journal) == 1
    same = Networks(subject, journal, "same", lambda _subject, _point: points.network(point))
    again, _ = same((0,))
    assert again.loss == costs.loss
    assert again.violation == costs.violation
    assert again.time_share == costs.time_share
    assert same((0,))[0] == again
    assert len(journal) == 2


def test_a_network_whose_answers_are_not_finite_has_failed(subject, tmp_path):
    def broken(subject, _point):
        network = small()
        network.get_submodule("classify").weight.data.fill_(float("nan"))
        return network

    costs, _ = Networks(subject, Journal(tmp_path / "n.jsonl"), "broken", broken)((0,))
    assert not costs.is_feasible


def test_what_is_delivered_is_confirmed_and_raced(subject):
    dense, wrong = small(), small()
    wrong.get_submodule("classify").bias.data[0] += 1e3
    found = delivered(subject, {"same": dense, "wrong": wrong})
    assert found["same"].confirmation["value"] == 0
    assert found["same"].verdict == "no_gain"
    assert found["wrong"].confirmation["samples"] == len(subject.confirmation)
    assert found["wrong"].confirmation["value"] > 20
    assert delivered(subject, {}) == {}


def test_the_energy_of_a_choice_is_that_of_its_singular_values(subject):
    weight = subject.dense.get_submodule("classify").weight.detach().double()
    choices = [row(0.1, 0.5, 10), row(0.2, 0.4, 10)]
    dense = LayerRow(name="classify", choices=(row(0.0, 1.0, 80), *choices))
    kinds = [None, Choice("svd", (2,)), Choice("cp3", (4,))]
    rows = [
        type(each)(choice=kind, loss=0.0, latency_ms=1.0, parameters=1, macs=1)
        for each, kind in zip(dense.choices, kinds, strict=True)
    ]
    made = ChoiceTable(
        layers=(LayerRow(name="classify", choices=tuple(rows)),),
        dense_latency_ms=1.0,
        dense_parameters=80,
        dense_macs=80,
        kept_dense={},
    )
    values = torch.linalg.svdvals(weight).square()
    (energies,) = energies_of(subject, made)
    assert energies == pytest.approx([1.0, float(values[:2].sum() / values.sum()), 0.0])


def test_jacobgil_takes_the_analytic_ranks_and_mends_nothing(subject):
    network = jacobgil.build(subject, (0,))
    for name in ("conv1", "conv2", "conv3"):
        layer, weight = network.get_submodule(name), subject.dense.get_submodule(name).weight
        ranks = [evbmf_rank(weight.detach().transpose(0, m).flatten(1).numpy()) for m in (0, 1)]
        assert is_factorized(layer) == (0 not in ranks)
    assert not is_factorized(network.get_submodule("classify"))
    for name in ("norm1", "norm2", "norm3"):
        for key, value in subject.dense.get_submodule(name).state_dict().items():
            assert torch.equal(network.get_submodule(name).state_dict()[key], value)


def test_pruning_takes_outputs_away_and_no_answer(subject, pruning):
    names = pruning.prunable(subject)
    assert names == ["conv1", "conv2", "conv3"]
    network = pruning.build(subject, (0, 10, 0))
    assert network.get_submodule("conv1").out_channels == 8
    assert 4 <= network.get_submodule("conv2").out_channels <= 8
    assert network(subject.example).shape == (1, 5)
    assert size_of(network) < size_of(subject.dense)
    assert size_of(pruning.build(subject, (0, 0, 0))) == size_of(subject.dense)
    assert not any(weight.requires_grad for weight in network.parameters())


def test_shares_follow_what_each_layer_can_bear(pruning):
    points = pruning.shares([0.0, 0.5, 1.0])
    assert all(point[2] == 0 for point in points)
    assert all(point[0] >= point[1] for point in points)
    assert points[0][0] == pruning.BOLDEST
    assert len(set(points)) == len(points)
    assert pruning.shares([0.0, -0.1]) == [(i, i) for i in range(pruning.BOLDEST, 0, -1)]
    assert pruning.shares([float("nan"), 0.0])[0][0] == 0
    assert pruning.shares([1.0, 1.0]) == []


def test_sensitivities_are_asked_layer_by_layer_before_the_shares(pruning):
    from search.strategy import Candidate  # noqa: PLC0415

    strategy = pruning.SensitivityPruningSearch(2)
    singles = strategy.ask()
    assert singles == [(pruning.ALONE, 0), (0, pruning.ALONE)]
    costs = [timed(loss, loss - 0.1, 0.5, 0.5) for loss in (0.0, 0.2)]
    strategy.tell([Candidate(p, c) for p, c in zip(singles, costs, strict=True)])
    (point,) = strategy.ask()
    assert point[1] == 0 < point[0]


def test_fasterai_keeps_more_of_a_network_at_more_energy(subject):
    pytest.importorskip("fasterai")
    from benchmarks.rivals import fasterai_tucker  # noqa: PLC0415

    least, most = (
        fasterai_tucker.build(subject, (i,)) for i in (0, len(fasterai_tucker.ENERGIES) - 1)
    )
    assert size_of(least) < size_of(most)
    assert least(subject.example).shape == (1, 5)


def test_a_call_is_timed_without_what_others_take(monkeypatch):
    read = iter([0, 30_000_000, 31_000_000, 71_000_000])
    monkeypatch.setattr(clock.CLOCK, "perf_counter_ns", lambda: next(read))
    calls = []
    with cpu_clock():
        assert measurement.time is clock.CLOCK
        assert Stopwatch(lambda: calls.append(1), torch.zeros(1)).turn() == [40.0]
    assert calls == [1, 1]
    assert measurement.time is stopwatch.time is time
    assert clock.CLOCK.perf_counter is time.thread_time
