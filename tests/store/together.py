"""Functions called by as many threads at the same moment."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

T = TypeVar("T")


def together(*functions: Callable[[], T]) -> Sequence[T]:
    """Their results, in the order of the functions; the first error, if there is one."""
    barrier = Barrier(len(functions))

    def start(function: Callable[[], T]) -> T:
        barrier.wait(timeout=30)
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(start, functions))
