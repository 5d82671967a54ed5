"""The runtimes by their names in the objective."""

from importlib.util import find_spec

import torch

from search.config import Objective
from search.errors import DeviceError
from search.runtimes.compiled import Compiled
from search.runtimes.compiled import missing as missing_compiler
from search.runtimes.cuda_graph import CudaGraph
from search.runtimes.eager import Eager
from search.runtimes.runtime import Runtime

GRAPHS = ("onnx", "onnxscript", "onnxruntime")  # what makes and checks an ONNX graph
NEEDED = {"onnxruntime": GRAPHS, "openvino": (*GRAPHS, "openvino")}
EXTRA = {"onnxruntime": "onnx", "openvino": "openvino"}  # of pyproject.toml


def runtime_of(objective: Objective) -> Runtime:
    """The runtime that the objective's speed-up is to hold for.

    Raises:
        DeviceError: it is not installed here.
    """
    name, threads = objective.runtime, objective.threads
    if reason := missing(name):
        raise DeviceError(f"runtime {name} came, which cannot run here: {reason}")
    if name == "eager":
        return Eager(threads)
    if name == "compile":
        return Compiled(threads)
    if name == "cuda_graph":
        return CudaGraph(threads)
    if name == "onnxruntime":
        from search.runtimes.onnx import OnnxRuntime  # noqa: PLC0415, optional

        return OnnxRuntime(threads)
    from search.runtimes.openvino import OpenVino  # noqa: PLC0415, optional

    return OpenVino(threads)


def missing(name: str) -> str | None:
    """What a runtime lacks on this machine, and what to do; None if nothing."""
    if name == "compile":
        return missing_compiler()
    if name == "cuda_graph" and not torch.cuda.is_available():
        return "this machine has no usable GPU: choose runtime eager or compile"
    absent = [package for package in NEEDED.get(name, ()) if find_spec(package) is None]
    if absent:
        return f"{', '.join(absent)} not installed: pip install 'ranksearch[{EXTRA[name]}]'"
    return None
