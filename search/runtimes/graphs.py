"""Networks as ONNX graphs, for the runtimes that take these: made fast, since many are timed."""

from typing import Final

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

MOST_TEMPLATES: Final = 8  # graphs that others are filled into


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

    Layers are written directly. The first network is exported, which takes seconds; those that
    differ from it in their factorised layers alone are filled into its graph. One that differs in
    other ways, that is narrower or keeps a norm say, is exported, and others filled into its graph.
    One whose filled graph comes to something else than the network is exported by itself.
    """

    def __init__(self) -> None:
        self._templates: list[Template] = []
        self._has_places = True

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
        template = next((each for each in self._templates if each.fits(network)), None)
        if template is None and self._has_places:
            try:
                template = Template(network, example)
                self._templates = [*self._templates[1 - MOST_TEMPLATES :], template]
            except ExportError:  # of a network without places, or of no graph at all
                self._has_places = False
        if template is None:
            return None
        graph = template.filled(network)
        try:
            with torch.inference_mode():
                difference = difference_of(network(example), Session(graph)(example))
        except ExportError:  # sizes between its layers are other than the template's
            return None
        return graph if difference <= TOLERANCE else None
