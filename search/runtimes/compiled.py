"""torch.compile with its defaults: what it makes of a network is made for one shape of input."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor, nn

from search.runtimes.runtime import NO_OTHERS, Call, Instances, Layout

COMPILERS = ("g++", "clang++", "cl")


@dataclass(frozen=True, slots=True)
class Compiled:
    """A `Runtime`: each network compiled by itself, in this process.

    torch.compile keeps what it made by the code that it compiled, and networks of one class share
    that: the second would wait for the first's guards, the ninth would not be compiled at all,
    and nobody would be told. So each network is called by code of its own.
    """

    threads: int = 1
    backend: str | Callable[..., Any] = "inductor"
    name = "compile"
    versions = NO_OTHERS

    @property
    def torch_threads(self) -> int:
        return self.threads

    def layouts(self, network: nn.Module, example: Tensor) -> tuple[Layout, ...]:  # noqa: ARG002
        return ("contiguous",)  # the compiler chooses inside

    def prepare(self, network: nn.Module, example: Tensor) -> Instances:
        """See `Runtime.prepare`; all instances are one, since compiling takes many seconds."""
        from torch._inductor import config  # noqa: PLC0415, loads the compiler, which takes seconds

        x = example.contiguous()

        def run() -> Tensor:
            return network(x)

        own = FunctionType(run.__code__.replace(), run.__globals__, "run", None, run.__closure__)
        compiled = cast("Call", torch.compile(own, backend=self.backend, dynamic=False))
        # Else a pool of compiling processes is started, which outlives the first compilation.
        with config.patch(compile_threads=1), torch.inference_mode():
            compiled()
        return lambda _: compiled


def missing() -> str | None:
    """What torch.compile lacks here: on a CPU it needs a compiler for C++."""
    named = os.environ.get("CXX")
    if any(shutil.which(compiler) for compiler in ([named] if named else COMPILERS)):
        return None
    return "no C++ compiler was found (g++, or the one that CXX names): install one"
