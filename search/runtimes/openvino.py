"""OpenVINO on the CPU, from the same graphs as onnxruntime."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

import openvino
from torch import Tensor, nn

from search.runtimes.graphs import GraphRuntime
from search.runtimes.runtime import Call, Layout


class OpenVino(GraphRuntime):
    """A `Runtime`: each network is compiled for the one shape of input that it is timed on."""

    name = "openvino"
    versions = MappingProxyType({"openvino": openvino.__version__})

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        self._core = openvino.Core()

    @contextmanager
    def ready(self, network: nn.Module, example: Tensor, layout: Layout) -> Iterator[Call]:  # noqa: ARG002
        graph = self.graphs.of(network, example)
        model = self._core.read_model(model=graph.SerializeToString())
        model.reshape(list(example.shape))
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the processor has it
        }
        request = self._core.compile_model(model, "CPU", settings).create_infer_request()
        inputs = {0: example.contiguous().numpy()}
        yield lambda: request.infer(inputs, share_inputs=True)
