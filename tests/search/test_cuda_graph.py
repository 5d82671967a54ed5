from contextlib import contextmanager

import pytest
import torch
from torch import nn

from search.config import ConfigError, Objective
from search.devices import find_device
from search.errors import DeviceError
from search.measurement import race
from search.runtimes.cuda_graph import WARM_UPS, CudaGraph
from search.runtimes.registry import runtime_of
from tests.search.subjects import small


class Driver:
    """What torch.cuda has for graphs, on a machine without a GPU: it writes down what is done."""

    def __init__(self, fault=None):
        self.log = []
        self._fault = fault
        driver = self

        class Stream:
            def wait_stream(self, _other):
                driver.log.append("waits")

        class Graph:
            def replay(self):
                driver.log.append("replays")

        self.Stream, self.CUDAGraph = Stream, Graph

    def current_stream(self):
        return self.Stream()

    @contextmanager
    def stream(self, _stream):
        self.log.append("aside")
        yield
        self.log.append("back")

    @contextmanager
    def graph(self, _graph):
        self.log.append("records")
        yield
        if self._fault:
            raise self._fault
        self.log.append("recorded")


@pytest.fixture
def driver(request, monkeypatch):
    found = Driver(getattr(request, "param", None))
    for name in ("Stream", "CUDAGraph", "current_stream", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(found, name))
    return found


class Counted(nn.Module):
    calls = 0

    def forward(self, x):
        type(self).calls += 1
        return x


def test_a_network_is_warmed_aside_recorded_once_and_replayed_without_python(driver):
    Counted.calls = 0
    call = CudaGraph().prepare(Counted(), torch.zeros(1, 3))("contiguous")
    assert driver.log == ["waits", "aside", "back", "waits", "records", "recorded"]
    assert Counted.calls == WARM_UPS + 1
    call()
    call()
    assert driver.log[6:] == ["replays", "replays"]
    assert Counted.calls == WARM_UPS + 1


def test_the_layouts_are_those_of_eager(driver):
    network, x = small(), torch.randn(1, 3, 8, 8)
    assert CudaGraph().layouts(network, x) == ("contiguous", "channels_last")
    for layout in CudaGraph().layouts(network, x):
        CudaGraph().prepare(network, x)(layout)
    assert driver.log.count("recorded") == 2
    assert network.conv1.weight.is_contiguous()


@pytest.mark.parametrize("driver", [RuntimeError("not permitted\nwhile recording")], indirect=True)
def test_what_cannot_be_recorded_is_told_and_what_to_do(driver):
    instances = CudaGraph().prepare(small(), torch.randn(1, 3, 8, 8))
    with pytest.raises(DeviceError, match=r"record this network \(not permitted\): choose runtime"):
        instances("contiguous")
    assert "recorded" not in driver.log


def test_a_graph_of_cuda_is_measured_on_a_gpu_alone(monkeypatch):
    with pytest.raises(ConfigError, match=r"cuda_graph came with device cpu.*choose device cuda"):
        Objective(runtime="cuda_graph", device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"cuda_graph came, which cannot run here: .* no usable"):
        runtime_of(Objective(runtime="cuda_graph"))
    with pytest.raises(DeviceError, match="no usable GPU"):
        find_device("auto", "cuda_graph")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runtime_of(Objective(runtime="cuda_graph", threads=2)) == CudaGraph(2)
    assert find_device("auto", "cuda_graph") == torch.device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_graph_computes_what_the_network_computes_and_is_raced():
    network, x = small().cuda(), torch.randn(4, 3, 8, 8, device="cuda")
    for layout in CudaGraph().layouts(network, x):
        output, _ = CudaGraph().prepare(network, x)(layout)()
        with torch.inference_mode():
            torch.testing.assert_close(output, network(x), rtol=1e-3, atol=1e-4)
    found = race({"dense": network, "same": network}, x, runtime=CudaGraph(), seconds=0.1)
    assert found.runtime == "cuda_graph"
    assert found.ratios["same"].low > 0
