"""Which layers of torchvision's classification networks can be factorised: `make results`.

Writes docs/support.md from what `compress.layers.inspect` says of each network.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from torch import nn

from benchmarks.record import ROOT
from compress.architectures import build
from compress.catalog import TORCHVISION
from compress.layers import LayerReport, inspect

PAGE = ROOT / "docs" / "support.md"
HEAD = """# Supported layers, network by network

What `ranksearch inspect` says of torchvision's classification networks, written by `make results`.
"Layers" are those that can be factorised, "share" is theirs of the parameters. Normalisations,
which have no matrix, are left out of the reasons.

| architecture | layers | share | kept dense, and why |
|---|---|---|---|
"""
NORMALISATION = re.compile("Norm")
NUMBER = re.compile(r"\d+ (?=groups)")


@dataclass(frozen=True, slots=True)
class Support:
    """The account of one network."""

    architecture: str
    parameters: int
    reports: Sequence[LayerReport]
    kinds: dict[str, str]
    """Layer -> its class."""

    @property
    def row(self) -> str:
        """A line of the page."""
        open_ = [r for r in self.reports if r.reason is None and r.shape is not None]
        share = sum(r.shape.parameters for r in open_ if r.shape is not None) / self.parameters
        reasons = Counter(
            _brief(self.kinds[r.name], r.reason)
            for r in self.reports
            if r.reason is not None and not NORMALISATION.search(self.kinds[r.name])
        )
        told = "; ".join(f"{n} {reason}" for reason, n in sorted(reasons.items()))
        return f"| {self.architecture} | {len(open_)} | {share:.1%} | {told} |"


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(page(supports()))


def page(found: Sequence[Support]) -> str:
    """The page's text."""
    return HEAD + "".join(f"{support.row}\n" for support in found)


def supports() -> list[Support]:
    """The accounts of all networks, by name."""
    with _without_values():
        return [_support(name) for name in sorted(TORCHVISION)]


def _support(name: str) -> Support:
    network = build(name)
    reports = inspect(network)
    kinds = {r.name: type(network.get_submodule(r.name)).__name__ for r in reports}
    return Support(name, sum(p.numel() for p in network.parameters()), reports, kinds)


@contextmanager
def _without_values() -> Iterator[None]:
    """Networks are built with whatever memory holds: drawing values takes most of the time."""

    def leave(tensor: Any, *_: Any, **__: Any) -> Any:
        return tensor

    names = [n for n in vars(nn.init) if n.endswith("_") and not n.startswith("_")]
    with mock.patch.multiple(nn.init, **dict.fromkeys(names, leave)):
        yield


def _brief(kind: str, reason: str) -> str:
    """The first method's reason, without the numbers that tell one layer from the next."""
    first = reason.partition("; ")[0].removeprefix("svd: ")
    for prefix in (f"{kind}: ", f"{kind} came, "):
        first = first.removeprefix(prefix)
    return f"{kind}: {NUMBER.sub('', first)}"


if __name__ == "__main__":
    main()
