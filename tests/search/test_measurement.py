import math
import platform
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from search import measurement, stopwatch
from search.measurement import HEATS, circumstances, median_interval, race, time_layers
from search.runtimes.eager import Eager


class Shared:
    """What copies of a network have in common."""

    def __deepcopy__(self, _):
        return self


class Notes(Shared, list):
    pass


class Recorder(nn.Module):
    """Notes what happens while it is called."""

    def __init__(self, calls, name="network"):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3)
        self.calls, self.name = calls, name

    def forward(self, x):
        self.calls.append(
            {
                "name": self.name,
                "threads": torch.get_num_threads(),
                "inference": torch.is_inference_mode_enabled(),
                "input_is_last": x.is_contiguous(memory_format=torch.channels_last),
                "weight_is_last": self.conv.weight.is_contiguous(memory_format=torch.channels_last),
            }
        )
        return self.conv(x)


class Clock(Shared):
    now = 0  # nanoseconds

    def perf_counter_ns(self):
        return self.now

    def perf_counter(self):
        return self.now / 1e9


@pytest.fixture
def fake_clock(monkeypatch):
    """Time goes on only while a network computes, by as much as the test says."""
    clock = Clock()
    for module in (measurement, stopwatch):
        monkeypatch.setattr(module, "time", clock)
    return clock


class Lasting(nn.Module):
    """Takes as many milliseconds of the fake clock as the next entry of a cycle says."""

    def __init__(self, clock, *milliseconds):
        super().__init__()
        self.clock, self.milliseconds, self.calls = clock, milliseconds, Notes()

    def forward(self, x):
        self.clock.now += int(1e6 * self.milliseconds[len(self.calls) % len(self.milliseconds)])
        self.calls.append(id(self))
        return x


X = torch.zeros(1, 2, 8, 8)


def test_networks_run_in_inference_mode_with_the_threads_of_the_objective():
    before, calls = torch.get_num_threads(), Notes()
    wanted = 1 if before != 1 else 2
    race({"dense": Recorder(calls)}, X, runtime=Eager(wanted), seconds=0)
    assert {call["threads"] for call in calls} == {wanted}
    assert all(call["inference"] for call in calls)
    assert torch.get_num_threads() == before


def test_the_thread_count_is_restored_when_a_network_fails():
    before = torch.get_num_threads()

    class Failing(nn.Module):
        def forward(self, x):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        race({"dense": Failing()}, X, runtime=Eager(before + 1), seconds=0)
    assert torch.get_num_threads() == before


def test_every_round_runs_every_network_in_an_order_drawn_anew(fake_clock):
    calls = Notes()

    class Named(Lasting):
        def __init__(self, name):
            super().__init__(fake_clock, 30)
            self.name = name

        def forward(self, x):
            calls.append(self.name)
            return super().forward(x)

    names = ["dense", "a", "b"]
    found = race({name: Named(name) for name in names}, X, runtime=Eager(), seconds=1.8)
    rounds = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    # A first call of each, then rounds of 90 ms, the last of a heat begun within its 200 ms.
    assert len(rounds) == HEATS * (1 + 3)
    assert found.rounds == HEATS * 3
    assert all(sorted(order) == sorted(names) for order in rounds)
    assert len({tuple(order) for order in rounds}) == math.factorial(3)
    assert len({tuple(order) for order in rounds[::4]}) > 1  # in which instances are made


def test_each_heat_has_instances_of_its_own_and_the_network_stays_as_it_is(fake_clock):
    network = Lasting(fake_clock, 30)
    race({"dense": network}, X, runtime=Eager(), seconds=1.8)
    instances = list(dict.fromkeys(network.calls))
    assert id(network) not in instances
    assert len(network.calls) == HEATS * (1 + 7)  # of 30 ms in 200, and one to get ready
    assert all(len(set(network.calls[i * 8 : i * 8 + 8])) == 1 for i in range(HEATS))
    assert len(instances) > 1  # an address may serve again after its instance is gone


def test_an_instance_that_came_to_lie_badly_does_not_decide(fake_clock):
    """In one heat of nine the candidate is slower by half, in another faster by half."""

    class Unlucky(nn.Module):
        def __init__(self, clock):
            super().__init__()
            self.clock, self.factor, self.copies = clock, 1.0, Notes()

        def __deepcopy__(self, _):
            made = Unlucky(self.clock)
            made.factor = {2: 1.5, 6: 0.5}.get(len(self.copies), 1.0)
            self.copies.append(made)
            return made

        def forward(self, x):
            self.clock.now += int(30e6 * self.factor)
            return x

    networks = {"dense": Lasting(fake_clock, 30), "candidate": Unlucky(fake_clock)}
    found = race(networks, X, runtime=Eager(), seconds=1.0).ratios["candidate"]
    assert (found.low, found.median, found.high) == (1, 1, 1)


def test_what_differs_from_heat_to_heat_is_in_the_interval(fake_clock):
    """However alike the rounds of each are: a copy as fast as the network is not called faster."""

    class Varying(nn.Module):
        def __init__(self, clock, number=0):
            super().__init__()
            self.clock, self.number, self.copies = clock, number, Notes()

        def __deepcopy__(self, _):
            self.copies.append(Varying(self.clock, len(self.copies)))
            return self.copies[-1]

        def forward(self, x):
            self.clock.now += int(1e6 * (96 + self.number))
            return x

    networks = {"dense": Lasting(fake_clock, 100), "copy": Varying(fake_clock)}
    found = race(networks, X, runtime=Eager(), seconds=3.0).ratios["copy"]
    assert found.low == pytest.approx(0.97)
    assert found.median == pytest.approx(1.0)
    assert found.high == pytest.approx(1.03)


def test_each_heat_has_a_round_at_least_however_little_time_there_is(fake_clock):
    found = race({"dense": Lasting(fake_clock, 500)}, X, runtime=Eager(), seconds=0.001)
    assert found.rounds == HEATS
    assert found.timings["dense"].n == HEATS


def test_the_ratio_is_paired_by_round_so_that_drift_cancels(fake_clock):
    class Drifting(nn.Module):
        def __init__(self, share):
            super().__init__()
            self.share = share

        def forward(self, x):
            fake_clock.now += int(self.share * (50e6 + fake_clock.now * 0.02))
            return x

    found = race({"dense": Drifting(1.0), "half": Drifting(0.5)}, X, runtime=Eager(), seconds=5)
    assert found.timings["dense"].p90_ms > 1.5 * found.timings["dense"].p10_ms  # it did drift
    assert found.ratios["half"].median == pytest.approx(0.5, rel=0.05)
    assert set(found.ratios) == {"half"}


def test_timings_are_percentiles_of_single_calls_in_milliseconds(fake_clock):
    found = race({"dense": Lasting(fake_clock, 100, 200)}, X, runtime=Eager(), seconds=10)
    timing = found.timings["dense"]
    assert (timing.p10_ms, timing.p90_ms) == (100, 200)
    assert timing.p50_ms in (100, 200)


def test_short_networks_are_called_several_times_a_turn(fake_clock):
    found = race({"dense": Lasting(fake_clock, 0.25)}, X, runtime=Eager(), seconds=0)
    assert found.timings["dense"].n == HEATS * 8  # 2 ms a turn


def test_a_known_layout_is_used_and_the_network_left_as_it_is():
    calls = Notes()
    network = Recorder(calls)
    found = race(
        {"dense": network}, X, runtime=Eager(), seconds=0, layouts={"dense": "channels_last"}
    )
    assert found.layouts == {"dense": "channels_last"}
    assert all(call["input_is_last"] and call["weight_is_last"] for call in calls)
    assert network.conv.weight.is_contiguous()
    assert not network.conv.weight.is_inference()  # else it could never be trained again


class Picky(nn.Module):
    """Takes another time in channels_last, told the number of the call in it."""

    def __init__(self, clock, last_ms):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3)
        self.clock, self.last_ms, self.calls = clock, last_ms, Notes()

    def forward(self, x):
        milliseconds = 20
        if self.conv.weight.is_contiguous(memory_format=torch.channels_last):
            assert x.is_contiguous(memory_format=torch.channels_last)
            milliseconds = self.last_ms(len(self.calls))
            self.calls.append(milliseconds)
        self.clock.now += int(1e6 * milliseconds)
        return x


@pytest.mark.parametrize(("last_ms", "wanted"), [(10, "channels_last"), (40, "contiguous")])
def test_the_layout_in_which_a_network_is_faster_counts(fake_clock, last_ms, wanted):
    network = Picky(fake_clock, lambda _: last_ms)
    networks = {"dense": network, "other": Lasting(fake_clock, 40)}
    found = race(networks, X, runtime=Eager(), seconds=1.0)
    assert found.layouts == {"dense": wanted, "other": "contiguous"}
    assert found.timings["dense"].p50_ms == min(last_ms, 20)
    assert found.ratios["other"].median == pytest.approx(40 / min(last_ms, 20))


def test_a_layout_that_is_far_slower_is_not_timed_again(fake_clock):
    slow, near = Picky(fake_clock, lambda _: 40), Picky(fake_clock, lambda _: 22)
    for network in (slow, near):
        race({"dense": network}, X, runtime=Eager(), seconds=0)
    assert [len(network.calls) for network in (slow, near)] == [2, 2 * HEATS]


def test_a_disturbance_that_passes_does_not_choose_the_layout(fake_clock):
    network = Picky(fake_clock, lambda call: 25 if call < 8 else 19)
    assert race({"dense": network}, X, runtime=Eager(), seconds=0).layouts == {
        "dense": "channels_last"
    }


def test_a_network_without_images_has_one_layout_only():
    found = race({"dense": nn.Linear(3, 3)}, torch.zeros(2, 3), runtime=Eager(), seconds=0)
    assert found.layouts == {"dense": "contiguous"}


def test_layers_are_timed_against_dense_and_hopeless_ones_once(fake_clock):
    layers = {
        "dense": Lasting(fake_clock, 20),
        "fast": Lasting(fake_clock, 5),
        "slow": Lasting(fake_clock, 60),
    }
    times = time_layers(layers, X, runtime=Eager(), layout="contiguous", seconds=1.0)
    assert times == pytest.approx({"dense": 20, "fast": 5, "slow": 60})
    assert len(layers["slow"].calls) == 2  # one to get ready, one turn
    assert len(layers["fast"].calls) > 20


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 60))
def test_the_interval_of_the_median_covers_what_it_says(n):
    low, high = median_interval([float(i) for i in range(n)])
    k = int(low) + 1  # rank of the lower end
    assert high == n - k
    coverage = 1 - 2 * sum(math.comb(n, j) for j in range(k)) / 2**n
    if n >= 6:
        assert coverage >= 0.95
        narrower = 1 - 2 * sum(math.comb(n, j) for j in range(k + 1)) / 2**n
        assert narrower < 0.95
    else:
        assert k == 1


def test_the_interval_does_not_depend_on_the_order():
    values = [random.Random(0).random() for _ in range(25)]
    assert median_interval(values) == median_interval(sorted(values))


def test_circumstances_name_device_threads_allocator_and_versions():
    found = circumstances(torch.device("cpu"), Eager(3))
    assert found["device"] == "cpu"
    assert found["threads"] == 3
    kept = platform.libc_ver()[0] == "glibc"
    assert found["allocator"] == ("freed memory kept" if kept else "as it comes")
    assert found["name"]
    assert found["versions"]["torch"] == torch.__version__
