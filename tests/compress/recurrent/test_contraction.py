from dataclasses import replace
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.recurrent.contraction import best_order, copied, cost, macs
from compress.recurrent.formats import FORMATS, network_of
from compress.recurrent.kcp import (
    contract_then_expand,
    contract_then_expand_macs,
    mode_by_mode,
    mode_by_mode_macs,
)
from compress.recurrent.modes import Modes
from compress.recurrent.projection import Projection
from tests.compress.recurrent.matrices import modes, networks

UCF11 = Modes((8, 20, 20, 18), (16, 4, 4, 4))


@settings(deadline=None, max_examples=60)
@given(found=networks(names=("svd", "cp", "tensor_train", "tensor_ring", "kronecker", "kcp")))
def test_no_order_of_single_factors_costs_less(found):
    *_, network = found
    names = list(network.factors)[:5]  # the others in their own order
    others = [(name,) for name in list(network.factors)[5:]]
    best = cost(network, best_order(network))
    for order in permutations(names):
        assert best <= cost(network, [*((name,) for name in order), *others])


@settings(deadline=None, max_examples=40)
@given(of=modes(4, 9, least_order=2), terms=st.integers(1, 3), rank=st.integers(1, 5))
def test_the_formulas_of_both_algorithms_are_what_is_counted(of, terms, rank):
    network = _network(of, terms, rank)
    in_turn, at_once = mode_by_mode(of, rank), contract_then_expand(of)
    assert macs(network, at_once) == contract_then_expand_macs(of, terms, rank)
    assert macs(network, in_turn) == mode_by_mode_macs(of, terms, rank)
    whole = [(f"in_{i}", f"out_{i}") for i in range(1, of.order + 1)]
    thin = [(name,) for names in whole for name in names]
    assert macs(network, in_turn) <= min(macs(network, whole), macs(network, thin))
    best = cost(network, best_order(network))
    assert best <= cost(network, at_once)
    if all(len(names) == 1 for names in in_turn):
        assert best <= cost(network, in_turn)


@given(of=modes(most_order=3, most_size=9), rank=st.integers(1, 4))
def test_longest_inputs_first_and_shortest_outputs_first_is_best(of, rank):
    network = _network(of, 1, rank)
    sides = [[(f"{side}_{i + 1}",) for i in range(of.order)] for side in ("in", "out")]
    orders = [(*a, *b) for a in permutations(sides[0]) for b in permutations(sides[1])]
    assert macs(network, contract_then_expand(of)) == min(macs(network, o) for o in orders)


@pytest.mark.parametrize(
    ("terms", "rank", "in_turn", "at_once"),
    [(1, 1, 1.49e6, 0.062e6), (2, 2, 2.99e6, 0.26e6), (4, 4, 5.97e6, 1.18e6)],
)
def test_the_counts_at_the_sizes_of_ucf11(terms, rank, in_turn, at_once):
    """With whole matrices for each mode, as the first algorithm is usually stated."""
    network = _network(UCF11, terms, rank)
    whole = [(f"in_{i}", f"out_{i}") for i in range(1, 5)]
    assert macs(network, whole) == pytest.approx(in_turn, rel=5e-3)
    assert contract_then_expand_macs(UCF11, terms, rank) == pytest.approx(at_once, rel=2e-2)
    best = best_order(network)
    assert cost(network, best) <= cost(network, contract_then_expand(UCF11))
    assert macs(network, best) <= 1.02 * contract_then_expand_macs(UCF11, terms, rank)


def test_a_large_rank_makes_the_matrices_of_the_modes_first():
    of = Modes((4, 4, 4), (4, 4, 4))
    assert mode_by_mode(of, 4) == tuple((f"in_{i}", f"out_{i}") for i in (1, 2, 3))
    assert mode_by_mode_macs(of, 2, 4) == 2 * 3 * 4**4
    assert set(best_order(_network(of, 2, 4))) == set(mode_by_mode(of, 4))


def test_the_matrix_itself_is_never_built():
    network = network_of("svd", Modes((4,), (4,)), (4,))
    assert best_order(network) == (("in_factor",), ("out_factor",))


def test_of_equally_many_macs_the_inputs_are_not_copied():
    network = _network(Modes((240, 240), (2, 2)), 1, 1)
    order = best_order(network)
    assert order[0] == ("in_2",)
    from_the_front = [("in_1",), *(names for names in order if names != ("in_1",))]
    assert macs(network, order) == macs(network, from_the_front)
    assert copied(network, order) < 240**2 <= copied(network, from_the_front)


@pytest.mark.parametrize(
    ("name", "ranks"), [("kcp", (2, 2)), ("cp", (3,)), ("tensor_ring", (2,) * 4)]
)
def test_copies_are_those_that_the_products_make(name, ranks):
    network = network_of(name, Modes((3, 5), (2, 7)), ranks)
    for order in permutations((factor,) for factor in network.factors):
        projection = Projection(
            network.sizes, network.inputs, network.outputs, network.factors, order
        )
        assert copied(network, order) == _copied_by(projection)


def test_of_many_factors_an_order_is_found_too():
    network = network_of("tensor_ring", Modes((2,) * 8, (2,) * 8), (2,) * 16)
    order = best_order(network)
    assert macs(network, order) < 2**16


def test_a_set_of_many_factors_is_not_given_up_for_the_copies_of_another():
    of = Modes.of(57_600, 1024, 5)
    network = network_of("tucker", of, FORMATS["tucker"].uniform(of, 5))
    inputs, outputs = ([(f"factor_{side}{i}",) for i in range(5, 0, -1)] for side in ("n", "m"))
    assert cost(network, best_order(network)) <= cost(network, [*inputs, ("core",), *outputs])


def _copied_by(projection):
    """Entries whose storage is another one after they were parted, for one of four vectors."""
    rows, x, entries = 4, torch.randn(4, projection.in_features), 0
    for arrange, matrix in zip(projection._arrangements, projection.prepared(), strict=True):
        parted = arrange(x, rows).reshape(*matrix.shape[:-2], -1, matrix.shape[-2])
        last_two = parted.stride()[-2:]
        if parted.data_ptr() != x.data_ptr() or 1 not in last_two:
            entries += x.numel() // rows
        x = parted @ matrix
    return entries + (projection._arrange_outputs.axes is not None) * projection.out_features


def _network(of, terms, rank):
    """Of any terms and rank, even where fewer would do."""
    labels, _ = FORMATS["kcp"].wiring(of.order)
    one = network_of("kcp", of, (1, 1))
    return replace(one, sizes=dict(one.sizes) | dict.fromkeys(labels, rank) | {"k": terms})
