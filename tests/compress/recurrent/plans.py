"""A plan of the network with recurrent layers."""

from compress.plan import Choice, Plan
from compress.recurrent.modes import Modes

MODES = Modes((4, 4), (8, 8))
PLAN = Plan(
    {
        "conv": Choice("svd", (4,)),
        "lstm.weight_ih_l0": Choice("kcp", (2, 4), Modes((2, 4), (8, 8))),
        "lstm.weight_hh_l0": Choice("svd", (4,)),
        "lstm.weight_hh_l0_reverse": Choice("tensor_ring", (2, 2, 2, 2), MODES),
        "gru.weight_ih_l0": Choice("svd", (4,)),
        "gru.weight_hh_l0": Choice("kronecker", (2,)),
    }
)
