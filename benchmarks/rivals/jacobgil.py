"""Kim et al. 2016 as its most copied script has it: pytorch-tensor-decompositions, by jacobgil.

Each convolution becomes a Tucker-2 of the analytic ranks of its two unfoldings, in the plain norm
of its weight. Nothing is mended afterwards; the script fine-tunes, for which there is no time here.
"""

import copy

from torch import nn

from benchmarks.rivals.simple import simplified
from compress.errors import CompressError
from compress.plan import Choice, Plan
from compress.surgery import factorize_
from search.strategy import Point
from search.subject import Subject
from search.vbmf import evbmf_rank


def build(subject: Subject, _point: Point) -> nn.Module:
    """The only network that the recipe makes. A layer that it cannot decompose stays dense."""
    network = copy.deepcopy(subject.dense)
    for name, layer in subject.dense.named_modules():
        if not isinstance(layer, nn.Conv2d) or max(layer.kernel_size) == 1:
            continue
        weight = layer.weight.detach().cpu()
        ranks = tuple(evbmf_rank(weight.transpose(0, mode).flatten(1).numpy()) for mode in (0, 1))
        try:
            factorize_(network, Plan({name: Choice("tucker2", ranks)}))
        except CompressError:  # no rank came out, or a channel is alone
            continue
    return simplified(subject, network)
