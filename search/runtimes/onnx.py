"""onnxruntime on the CPU: on most networks the fastest there, and the one to deploy with."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import onnxruntime
from torch import Tensor, nn

from compress.onnx.session import Session
from search.runtimes.graphs import Graphs
from search.runtimes.runtime import Call, Layout


class OnnxRuntime:
    """A `Runtime`: each network is an ONNX graph, which onnxruntime lays out as it likes."""

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._graphs = Graphs()

    @property
    def name(self) -> str:
        return "onnxruntime"

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def torch_threads(self) -> int:
        return 1

    @property
    def versions(self) -> Mapping[str, str]:
        return {"onnxruntime": onnxruntime.__version__}

    def layouts(self, network: nn.Module, example: Tensor) -> tuple[Layout, ...]:  # noqa: ARG002
        return ("contiguous",)

    @contextmanager
    def ready(self, network: nn.Module, example: Tensor, layout: Layout) -> Iterator[Call]:  # noqa: ARG002
        session = Session(self._graphs.of(network, example), threads=self._threads)
        inputs = {session.input: example.contiguous().numpy()}
        yield lambda: session.run(None, inputs)
