"""CUDA graphs: the kernels of a network recorded once, then launched together without Python.

A factorised layer is several short kernels in place of a long one. At a small batch they take
longer to launch one after the other than to compute, and the speed-up is lost to the processor.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search.errors import DeviceError
from search.runtimes.eager import Eager
from search.runtimes.runtime import Call, Instances

WARM_UPS = 3  # calls before the recording, in which libraries choose kernels and allocate


@dataclass(frozen=True, slots=True)
class CudaGraph(Eager):
    """A `Runtime`: eager's kernels in eager's layouts, on a GPU, for the one input that came."""

    name = "cuda_graph"

    def prepare(self, network: nn.Module, example: Tensor) -> Instances:
        """See `Runtime.prepare`; an instance is recorded when it is made.

        Raises:
            DeviceError: by an instance: the network waits for its own results, which no graph can.
        """
        instances = Eager.prepare(self, network, example)  # slots leave super() without its class
        return lambda layout: recorded(instances(layout))


def recorded(call: Call) -> Call:
    """What `call` launches, as one graph, on the current stream.

    Raises:
        DeviceError: it cannot be recorded.
    """
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(aside):
        for _ in range(WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.inference_mode(), torch.cuda.graph(graph):
            output = call()
    except RuntimeError as error:
        first_line = str(error).partition("\n")[0]
        raise DeviceError(
            f"runtime cuda_graph came, which cannot record this network ({first_line}): "
            "choose runtime eager or compile"
        ) from error

    def replay() -> object:
        graph.replay()
        return output, call  # the graph reads what `call` holds: both have to live as long

    return replay
