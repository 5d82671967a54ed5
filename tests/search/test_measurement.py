import math
import platform
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from search import measurement
from search.measurement import (
    best_layout,
    circumstances,
    median_interval,
    race,
    time_layers,
)
from search.runtimes.eager import Eager


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


@pytest.fixture
def fake_clock(monkeypatch):
    """Time goes on only while a network computes, by as much as the test says."""
    clock = type("Clock", (), {"now": 0, "perf_counter_ns": lambda self: self.now})()
    clock.perf_counter = lambda: clock.now / 1e9
    monkeypatch.setattr(measurement, "time", clock)
    return clock


class Lasting(nn.Module):
    """Takes as many milliseconds of the fake clock as the next entry of a cycle says."""

    def __init__(self, clock, *milliseconds):
        super().__init__()
        self.clock, self.milliseconds, self.calls = clock, milliseconds, 0

    def forward(self, x):
        self.clock.now += int(1e6 * self.milliseconds[self.calls % len(self.milliseconds)])
        self.calls += 1
        return x


X = torch.zeros(1, 2, 8, 8)


def test_networks_run_in_inference_mode_with_the_threads_of_the_objective():
    before, calls = torch.get_num_threads(), []
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
    calls = []

    class Named(Lasting):
        def __init__(self, name):
            super().__init__(fake_clock, 30)
            self.name = name

        def forward(self, x):
            calls.append(self.name)
            return super().forward(x)

    names = ["dense", "a", "b"]
    found = race({name: Named(name) for name in names}, X, runtime=Eager(), seconds=2.0)
    turns = calls[2 * len(names) :]  # after a first and a second call of each
    rounds = [turns[i : i + 3] for i in range(0, len(turns), 3)]
    assert len(rounds) == found.rounds == 23  # of 90 ms, the last begun within two seconds
    assert all(sorted(order) == sorted(names) for order in rounds)
    assert len({tuple(order) for order in rounds}) == math.factorial(3)


def test_rounds_are_seven_at_least_however_little_time_there_is(fake_clock):
    found = race({"dense": Lasting(fake_clock, 500)}, X, runtime=Eager(), seconds=0.001)
    assert found.rounds == 7
    assert found.timings["dense"].n == 7


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
    assert found.timings["dense"].n == 7 * 8  # 2 ms a turn


def test_a_known_layout_is_used_and_undone():
    calls = []
    network = Recorder(calls)
    found = race(
        {"dense": network}, X, runtime=Eager(), seconds=0, layouts={"dense": "channels_last"}
    )
    assert found.layouts == {"dense": "channels_last"}
    assert all(call["input_is_last"] and call["weight_is_last"] for call in calls)
    assert network.conv.weight.is_contiguous()
    assert not network.conv.weight.is_inference()  # else it could never be trained again


@pytest.mark.parametrize(("last_ms", "wanted"), [(10, "channels_last"), (40, "contiguous")])
def test_the_faster_layout_is_found_by_timing_both(fake_clock, last_ms, wanted):
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3)

        def forward(self, x):
            is_last = self.conv.weight.is_contiguous(memory_format=torch.channels_last)
            fake_clock.now += int(1e6 * (last_ms if is_last else 20))
            return x

    assert best_layout(Picky(), X, runtime=Eager()) == wanted


def test_a_short_network_is_looked_at_until_a_disturbance_is_over(fake_clock):
    class Disturbed(nn.Module):
        """Faster in channels_last, but for its first calls in it."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3)
            self.calls = 0

        def forward(self, x):
            is_last = x.is_contiguous(memory_format=torch.channels_last)
            self.calls += is_last
            fake_clock.now += int(1e6 * ((4 if self.calls <= 20 else 1) if is_last else 2))
            return x

    assert best_layout(Disturbed(), X, runtime=Eager()) == "channels_last"


def test_a_network_without_images_has_one_layout_only():
    assert best_layout(nn.Linear(3, 3), torch.zeros(2, 3), runtime=Eager()) == "contiguous"


def test_layers_are_timed_against_dense_and_hopeless_ones_once(fake_clock):
    layers = {
        "dense": Lasting(fake_clock, 20),
        "fast": Lasting(fake_clock, 5),
        "slow": Lasting(fake_clock, 60),
    }
    times = time_layers(layers, X, runtime=Eager(), layout="contiguous", seconds=1.0)
    assert times == pytest.approx({"dense": 20, "fast": 5, "slow": 60})
    assert layers["slow"].calls == 3  # two to get ready, one turn
    assert layers["fast"].calls > 20


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
