"""onnxruntime on the CPU: on most networks the fastest there, and the one to deploy with."""

from types import MappingProxyType

import onnxruntime
from torch import Tensor, nn

from compress.onnx.session import Session
from search.runtimes.graphs import GraphRuntime
from search.runtimes.runtime import Call, Instances, Layout


class OnnxRuntime(GraphRuntime):
    """A `Runtime`: each network is an ONNX graph, which onnxruntime lays out as it likes."""

    name = "onnxruntime"
    versions = MappingProxyType({"onnxruntime": onnxruntime.__version__})

    def prepare(self, network: nn.Module, example: Tensor) -> Instances:
        """See `Runtime.prepare`."""
        graph = self.graphs.of(network, example).SerializeToString()

        def instance(layout: Layout) -> Call:  # noqa: ARG001
            session = Session(graph, threads=self.threads)
            inputs = {session.inputs[0]: example.contiguous().numpy()}
            return lambda: session.run(None, inputs)

        return instance
