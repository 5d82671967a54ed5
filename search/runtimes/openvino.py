"""OpenVINO on the CPU, from the same graphs as onnxruntime."""

from types import MappingProxyType

import openvino
from torch import Tensor, nn

from search.runtimes.graphs import GraphRuntime
from search.runtimes.runtime import Call, Instances, Layout


class OpenVino(GraphRuntime):
    """A `Runtime`: each network is compiled for the one shape of input that it is timed on."""

    name = "openvino"
    versions = MappingProxyType({"openvino": openvino.__version__})

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        self._core = openvino.Core()

    def prepare(self, network: nn.Module, example: Tensor) -> Instances:
        """See `Runtime.prepare`."""
        graph = self.graphs.of(network, example)
        model = self._core.read_model(model=graph.SerializeToString())
        model.reshape(list(example.shape))
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the processor has it
        }

        def instance(layout: Layout) -> Call:  # noqa: ARG001
            request = self._core.compile_model(model, "CPU", settings).create_infer_request()
            inputs = {0: example.contiguous().numpy()}
            return lambda: request.infer(inputs, share_inputs=True)

        return instance
