"""OpenVINO on the CPU, from the same graphs as onnxruntime."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import openvino
from torch import Tensor, nn

from search.runtimes.graphs import Graphs
from search.runtimes.runtime import Call, Layout


class OpenVino:
    """A `Runtime`: each network is compiled for the one shape of input that it is timed on."""

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._graphs = Graphs()
        self._core = openvino.Core()

    @property
    def name(self) -> str:
        return "openvino"

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def torch_threads(self) -> int:
        return 1

    @property
    def versions(self) -> Mapping[str, str]:
        return {"openvino": openvino.__version__}

    def layouts(self, network: nn.Module, example: Tensor) -> tuple[Layout, ...]:  # noqa: ARG002
        return ("contiguous",)

    @contextmanager
    def ready(self, network: nn.Module, example: Tensor, layout: Layout) -> Iterator[Call]:  # noqa: ARG002
        graph = self._graphs.of(network, example)
        model = self._core.read_model(model=graph.SerializeToString())
        model.reshape(list(example.shape))
        settings = {
            "INFERENCE_NUM_THREADS": self._threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the processor has it
        }
        request = self._core.compile_model(model, "CPU", settings).create_infer_request()
        inputs = {0: example.contiguous().numpy()}
        yield lambda: request.infer(inputs, share_inputs=True)
