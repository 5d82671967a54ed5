"""onnxruntime on the CPU: on most networks the fastest there, and the one to deploy with."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

import onnxruntime
from torch import Tensor, nn

from compress.onnx.session import Session
from search.runtimes.graphs import GraphRuntime
from search.runtimes.runtime import Call, Layout


class OnnxRuntime(GraphRuntime):
    """A `Runtime`: each network is an ONNX graph, which onnxruntime lays out as it likes."""

    name = "onnxruntime"
    versions = MappingProxyType({"onnxruntime": onnxruntime.__version__})

    @contextmanager
    def ready(self, network: nn.Module, example: Tensor, layout: Layout) -> Iterator[Call]:  # noqa: ARG002
        session = Session(self.graphs.of(network, example), threads=self.threads)
        inputs = {session.inputs[0]: example.contiguous().numpy()}
        yield lambda: session.run(None, inputs)
