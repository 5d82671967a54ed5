"""A `.pt2` archive as a network: read as data, tried without memory, then loaded."""

from pathlib import Path

from torch import nn

from compress.program.archive import Archive
from compress.program.assembly import assemble
from compress.program.graph import read_graph
from compress.program.state import read_state
from compress.program.tensors import load


def read_program(path: str | Path) -> nn.Module:
    """x"""
    with Archive(path) as archive:
        graph, state = read_graph(archive), read_state(archive)
        persistent = {name for name, stored in state.items() if stored.persistent}
        return assemble(graph, load(archive, state), persistent)
