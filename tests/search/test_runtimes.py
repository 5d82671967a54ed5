import copy
import shutil
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from compress.batch import Batch, accept_batches_
from compress.errors import ExportError
from compress.flow import Flow
from compress.onnx.session import Session
from compress.plan import Choice, Plan
from compress.simplify import simplify_
from compress.surgery import factorize_
from search import analysis, layer_forms, measurement
from search import subject as subject_module
from search.config import Budget, ConfigError, EstimationConfig, Objective, SearchConfig
from search.data.arrays import Arrays
from search.devices import find_device
from search.errors import DeviceError
from search.measurement import circumstances, race, time_layers
from search.run import search_ranks
from search.runtimes import graphs, registry
from search.runtimes.compiled import Compiled
from search.runtimes.eager import Eager
from search.runtimes.graphs import Graphs
from search.runtimes.onnx import OnnxRuntime
from search.runtimes.registry import runtime_of
from search.subject import Subject
from tests.search.subjects import SMALL_ARCHITECTURE, small, weighed_layers, weighed_race

PLAN = Plan({"conv2": Choice("svd", (4,)), "classify": Choice("svd", (3,))})
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
EXACT = {"rtol": 1e-4, "atol": 1e-5}


class Backend:
    """Compiles nothing: it counts the graphs that it was given and how often each was run."""

    def __init__(self):
        self.runs = []

    def __call__(self, graph, inputs):
        self.runs.append(0)
        number = len(self.runs) - 1

        def run(*values):
            self.runs[number] += 1
            return graph.forward(*values)

        return run


def open_vino():
    from search.runtimes.openvino import OpenVino  # noqa: PLC0415, optional

    return OpenVino()


RUNTIMES = {
    "eager": Eager,
    "compile": lambda: Compiled(backend=Backend()),
    "onnxruntime": OnnxRuntime,
    "openvino": open_vino,
}


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request):
    """One for all tests: a network like the first is exported once."""
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return RUNTIMES[request.param]()


def factorised():
    model = small()
    factorize_(model, PLAN)
    return model


def value(output):
    """What a call gave, in the form of its runtime, as a tensor."""
    return output if isinstance(output, torch.Tensor) else torch.from_numpy(np.array(output[0]))


def test_its_name_is_that_of_the_objective_and_it_has_one_thread(runtime):
    assert (RUNTIMES[runtime.name], runtime.threads, runtime.torch_threads) == (
        RUNTIMES[runtime.name],
        1,
        1,
    )
    assert Objective(runtime=runtime.name).runtime == runtime.name


def test_a_call_computes_what_the_network_computes_whole_or_a_layer(runtime):
    cases = [(model, X) for model in (small(), factorised())]
    cases += [(model.conv2, torch.randn(1, 8, 8, 8)) for model, _ in cases]
    cases += [(nn.Linear(3, 4), torch.randn(2, 5, 3))]
    for network, x in cases:
        for layout in runtime.layouts(network, x):
            with torch.inference_mode():
                call = runtime.prepare(network, x)(layout)
                torch.testing.assert_close(value(call()), network(x), **EXACT)


def test_the_network_is_afterwards_as_it_came(runtime):
    network = factorised()
    before = copy.deepcopy(network.state_dict())
    for layout in runtime.layouts(network, X):
        runtime.prepare(network, X)(layout)()
    assert not network.training
    for key, weight in network.state_dict().items():
        assert torch.equal(weight, before[key])
        assert weight.is_contiguous()
        assert not weight.is_inference()


def test_an_instance_has_memory_of_its_own(runtime):
    """Else where the weights came to lie once would be in every heat of a race."""
    network = small()
    make = runtime.prepare(network, X)
    with torch.inference_mode():
        wanted = network(X).clone()
        calls = [make(layout) for layout in runtime.layouts(network, X)]
        if runtime.name != "compile":  # whose instances are one
            for weight in network.parameters():
                weight.zero_()
        for call in calls:
            torch.testing.assert_close(value(call()), wanted, **EXACT)


def test_a_race_names_every_network_and_a_layout_of_the_runtime(runtime):
    networks = {"dense": small(), "candidate": factorised()}
    found = race(networks, X, runtime=runtime, seconds=0)
    assert found.rounds == measurement.HEATS
    assert set(found.timings) == set(networks)
    assert list(found.ratios) == ["candidate"]
    for name, timing in found.timings.items():
        assert 0 < timing.p10_ms <= timing.p50_ms <= timing.p90_ms
        assert timing.n >= found.rounds
        assert found.layouts[name] in runtime.layouts(networks[name], X)
    ratio = found.ratios["candidate"]
    assert 0 < ratio.low <= ratio.median <= ratio.high


def test_layers_are_timed_in_it(runtime):
    layers = {"dense": small().conv2, "svd": factorised().conv2}
    times = time_layers(
        layers, torch.randn(1, 8, 8, 8), runtime=runtime, layout="contiguous", seconds=0
    )
    assert set(times) == set(layers)
    assert min(times.values()) > 0


def test_circumstances_name_it_with_its_version(runtime):
    found = circumstances(torch.device("cpu"), runtime)
    assert found["runtime"] == runtime.name
    needs_more = runtime.name in ("onnxruntime", "openvino")
    assert (runtime.name in found["versions"]) == needs_more


def test_networks_of_one_class_are_each_compiled():
    """torch.compile gives up after eight of them, and says so only in its log."""
    backend = Backend()
    runtime = Compiled(backend=backend)
    for width in range(1, 11):
        linear, x = nn.Linear(3, width), torch.zeros(1, 3)
        with torch.inference_mode():
            assert runtime.prepare(linear, x)("contiguous")().shape == (1, width)
    assert backend.runs == [2] * 10


def test_a_compiled_network_is_still_its_own_when_others_of_its_class_were_compiled():
    backend = Backend()
    runtime = Compiled(backend=backend)
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    x = torch.randn(1, 3)
    with torch.inference_mode():
        one, two = (runtime.prepare(each, x)("contiguous") for each in (first, second))
        torch.testing.assert_close(one(), first(x))
        torch.testing.assert_close(two(), second(x))
    assert len(backend.runs) == 2


def test_threads_of_onnxruntime_sleep_and_torch_has_one_meanwhile():
    runtime = OnnxRuntime(threads=3)
    assert (runtime.threads, runtime.torch_threads) == (3, 1)
    call = runtime.prepare(small().conv2, torch.randn(1, 8, 8, 8))("contiguous")
    session = call.__closure__[1].cell_contents
    options = session._session.get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_networks_made_from_one_another_are_exported_once(monkeypatch):
    made = []
    monkeypatch.setattr(
        graphs, "Template", lambda *both: made.append(graphs_template(*both)) or made[-1]
    )
    found = Graphs()
    for network in (small(), factorised(), small()):
        found.of(network, X)
    assert len(made) == 1


graphs_template = graphs.Template


class AtOnce(nn.Module):
    """Two calls of a layer that look like one in the graph."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(2, 2, 1)

    def forward(self, x):
        return self.layer(self.layer(x))


def test_what_a_filled_graph_gets_wrong_is_exported_by_itself():
    network, x = AtOnce().eval(), torch.randn(1, 2, 5)
    call = OnnxRuntime().prepare(network, x)("contiguous")
    torch.testing.assert_close(value(call()), network(x).detach(), **EXACT)


class Pooled(nn.Module):
    """As many features as it is wide, four to each, viewed as one row."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Conv1d(2, width, 1)
        self.classify = nn.Linear(4 * width, 3)

    def forward(self, x):
        return self.classify(self.layer(x).flatten(1))


def test_a_narrower_network_is_exported_by_itself():
    runtime, x = OnnxRuntime(), torch.randn(1, 2, 4)
    for width in (6, 4):
        network = Pooled(width).eval()
        call = runtime.prepare(network, x)("contiguous")
        torch.testing.assert_close(value(call()), network(x).detach(), **EXACT)


def test_a_network_without_places_is_exported_by_itself(monkeypatch):
    tried = []

    def refuse(*_):
        tried.append(True)
        raise ExportError("no single path", "model.onnx")

    monkeypatch.setattr(graphs, "Template", refuse)
    monkeypatch.setattr(graphs, "exported", lambda network, _: network)
    found, networks = Graphs(), [small(), factorised()]
    assert [found.of(network, X) for network in networks] == networks
    assert len(tried) == 1


@pytest.mark.parametrize(("name", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_runtime_that_is_not_installed_is_told_before_anything_is_measured(
    monkeypatch, name, extra
):
    monkeypatch.setattr(registry, "find_spec", lambda _: None)
    config = order(name)
    with pytest.raises(
        DeviceError, match=rf"runtime {name} came.*pip install 'ranksearch\[{extra}\]'"
    ):
        Subject.prepare(small(), None, config, {})


def test_without_a_compiler_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DeviceError, match=r"runtime compile came.*C\+\+ compiler"):
        runtime_of(Objective(runtime="compile"))
    asked = []
    monkeypatch.setattr(shutil, "which", lambda name: asked.append(name) or name)
    monkeypatch.setenv("CXX", "mine")
    assert runtime_of(Objective(runtime="compile")) == Compiled()
    assert asked == ["mine"]


def test_the_objective_s_threads_are_the_runtime_s():
    for name in ("eager", "onnxruntime"):
        found = runtime_of(Objective(runtime=name, threads=2))
        assert (found.name, found.threads) == (name, 2)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_runtime_of_the_cpu_is_not_measured_on_a_gpu(monkeypatch, name):
    with pytest.raises(ConfigError, match="choose device cpu"):
        Objective(runtime=name, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto", name) == torch.device("cpu")
    assert find_device("auto", "compile") == torch.device("cuda")


def order(runtime, fold_norms=False, methods=("svd", "tucker2")):
    return SearchConfig(
        budget=Budget(max_loss=20, unit="points", metric="agreement"),
        objective=Objective(device="cpu", runtime=runtime, fold_norms=fold_norms),
        search=EstimationConfig(max_evaluations=2),
        methods=methods,
    )


@pytest.mark.parametrize(
    ("fold_norms", "methods"),
    [(False, ("svd", "tucker2")), (True, ("svd", "tucker2")), (False, ("kronecker",))],
    ids=str,
)
def test_a_search_holds_for_the_runtime_of_its_objective(monkeypatch, fold_norms, methods):
    timed, norms = [], []
    monkeypatch.setattr(graphs, "exported", pytest.fail)  # all of them fill the first one's graph

    def instead(measure, told):
        """Measure, for the sake of the runtime, but go by the number of parameters."""

        def run(networks, example, *, runtime, **settings):
            measure(networks, example, runtime=runtime, **settings | {"seconds": 0})
            timed.append((measure.__name__, runtime.name))
            if measure is race:
                norms.extend(map(norms_of, networks.values()))
            return told(networks, example, runtime=runtime, **settings)

        return run

    monkeypatch.setattr(layer_forms, "time_layers", instead(time_layers, weighed_layers))
    monkeypatch.setattr(subject_module, "race", instead(race, weighed_race))
    images = torch.randn(120, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    data = Arrays.of_images(images, train_images=images[:40])
    config = order("onnxruntime", fold_norms, methods)
    result = search_ranks(small(), data, config, SMALL_ARCHITECTURE)
    assert {row["method"] for row in result.evidence["layers"]} - {None} <= set(methods)
    assert len(result.confirmation.plan) > 0
    assert set(norms) == {0 if fold_norms else 3}
    assert result.evidence["objective"]["runtime"] == "onnxruntime"
    assert result.evidence["circumstances"]["runtime"] == "onnxruntime"
    assert result.evidence["result"]["runtime"] == "onnxruntime"
    assert Counter(timed)["race", "onnxruntime"] >= 3  # baseline, a candidate, the finalists
    assert {runtime for _, runtime in timed} == {"onnxruntime"}


def norms_of(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_a_norm_that_only_one_network_keeps_is_in_its_graph(monkeypatch):
    """What ends in a `Flat` has no layer that a norm could go into."""
    filled, fill = [], graphs.Template.filled
    monkeypatch.setattr(
        graphs.Template,
        "filled",
        lambda self, network: filled.append(network) or fill(self, network),
    )
    dense, found = small(), small()
    factorize_(found, Plan({"conv2": Choice("kronecker", (2, 2, 1))}))
    flow, made = Flow.of(dense, X), Graphs()
    for network, kept in ((dense, 0), (found, 1), (dense, 0)):
        simplify_(network, flow, X, fold_norms=True)
        assert norms_of(network) == kept
        with torch.inference_mode():
            came = Session(made.of(network, X))(X)
            torch.testing.assert_close(came, network(X), **EXACT)
    assert filled == [dense, dense]


class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x, y):
        return self.layer(x) * y


def test_several_inputs_are_compiled():
    network, batch = Product(), Batch([torch.randn(3, 4), torch.randn(3, 4)])
    accept_batches_(network)
    backend = Backend()
    with torch.inference_mode():
        call = Compiled(backend=backend).prepare(network, batch)("contiguous")
        torch.testing.assert_close(call(), network(batch))
    assert backend.runs == [2]


def test_a_graph_of_several_inputs_is_refused_before_anything_is_measured():
    data = Arrays(inputs={"x": torch.randn(120, 4), "y": torch.randn(120, 4)})
    with pytest.raises(ConfigError, match=r"onnxruntime came with data of 2 inputs.*eager"):
        Subject.prepare(Product(), data, order("onnxruntime"), {})


def test_tables_of_two_runtimes_are_kept_apart():
    keys = {
        analysis.table_key("model", "data", order(name), "cpu", {})
        for name in ("eager", "onnxruntime")
    }
    assert len(keys) == 2


def test_openvino_is_optional():
    assert (registry.missing("openvino") is None) == (find_spec("openvino") is not None)


def test_what_is_not_asked_for_is_not_loaded():
    code = (
        "import sys, search.run, search.verification, workers.phases; "
        "print({'onnx', 'onnxruntime', 'openvino', 'sympy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
