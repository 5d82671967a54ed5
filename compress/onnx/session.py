"""ONNX graphs run by onnxruntime, in the same process as torch."""

from pathlib import Path

import onnxruntime
import torch
from onnx import ModelProto
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from torch import Tensor

from compress.artifact import GRAPH
from compress.errors import ExportError

ERRORS_ALONE = 3  # of onnxruntime's log levels


class Session:
    """A graph of one output, loaded and optimised for the CPU.

    Idle threads of onnxruntime would spin and take the processor from torch: here they sleep.

    Args:
        graph: in memory, written out or not, or a file; a graph of more than 2 GB can only be a
            file.
        threads: to compute with.
    """

    def __init__(self, graph: ModelProto | bytes | Path, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ALONE
        for pool in ("intra_op", "inter_op"):
            options.add_session_config_entry(f"session.{pool}.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            _loadable(graph),
            options,
            providers=["CPUExecutionProvider"],
        )
        self.inputs = [entry.name for entry in self._session.get_inputs()]
        self.run = self._session.run
        """onnxruntime's own call, without a layer of ours around it: run(None, {input: array})."""

    def __call__(self, *batch: Tensor) -> Tensor:
        """The graph's output for a batch on the CPU, one tensor for each input.

        Raises:
            ExportError: onnxruntime cannot compute it.
        """
        arrays = (x.detach().numpy() for x in batch)
        try:
            (output,) = self.run(None, dict(zip(self.inputs, arrays, strict=True)))
        except (Fail, InvalidArgument, RuntimeException) as error:
            raise ExportError(f"onnxruntime cannot compute the graph: {error}", GRAPH) from error
        return torch.from_numpy(output)


def _loadable(graph: ModelProto | bytes | Path) -> bytes | str:
    if isinstance(graph, ModelProto):
        return graph.SerializeToString()
    return graph if isinstance(graph, bytes) else str(graph)
