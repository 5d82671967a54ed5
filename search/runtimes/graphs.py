"""Networks as ONNX graphs, for the runtimes that take these: made fast, since many are timed."""

from contextlib import suppress

import torch
from onnx import ModelProto
from torch import Tensor, nn

from compress.errors import ExportError
from compress.export import TOLERANCE, difference_of
from compress.onnx.layers import is_writable, layer_model
from compress.onnx.network import exported
from compress.onnx.session import Session
from compress.onnx.template import Template
from search.runtimes.runtime import Layout


class GraphRuntime:
    """What the runtimes that take graphs have in common.

    Torch keeps to one thread meanwhile, and the runtime lays values out as it likes.
    """

    torch_threads = 1

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self.graphs = Graphs()

    def layouts(self, network: nn.Module, example: Tensor) -> tuple[Layout, ...]:  # noqa: ARG002
        """See `Runtime.layouts`."""
        return ("contiguous",)


class Graphs:
    """Graphs of layers, and of networks that are made from one another.

    Layers are written directly. The first network is exported; those that differ from it in
    their factorised layers alone are filled into its graph. Every other network is exported by
    itself, which takes seconds: one that was simplified in another way, of which a norm is left
    after a folded layer say, and one whose filled graph cannot be computed, or comes to something
    else than the network.
    """

    def __init__(self) -> None:
        self._template: Template | None = None
        self._is_first = True

    def of(self, network: nn.Module, example: Tensor) -> ModelProto:
        """The graph of a layer or a network, for batches of any size.

        Args:
            network: in eval mode, on the CPU; left as it is.
            example: a batch (N, ...) of inputs.

        Raises:
            ExportError: the exporter refuses the network.
        """
        if is_writable(network):
            return layer_model(network, example)
        graph = self._filled(network, example)
        return graph if graph is not None else exported(network, example)

    def _filled(self, network: nn.Module, example: Tensor) -> ModelProto | None:
        """The graph with this network's layers in its places; None where that is no good."""
        if self._is_first:
            self._is_first = False
            with suppress(ExportError):  # of a network without places, or of no graph at all
                self._template = Template(network, example)
        if self._template is None or not self._template.fits(network):
            return None
        graph = self._template.filled(network)
        try:
            with torch.inference_mode():
                difference = difference_of(network(example), Session(graph)(example))
        except ExportError:  # sizes between its layers are other than the first network's
            return None
        return graph if difference <= TOLERANCE else None
