import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from compress.recurrent.contraction import best_order, macs
from compress.recurrent.formats import FORMATS, network_of
from compress.recurrent.kcp import contract_then_expand, mode_by_mode
from compress.recurrent.modes import Modes
from compress.recurrent.projection import Projection
from tests.compress.recurrent.matrices import matrix_of, modes, networks, projection_of
from tests.strategies import SEEDS, normal

EXACT = {"rtol": 0, "atol": 1e-10}


def assert_parity(projection, seed, rows):
    """The product and all its gradients are those of the matrix."""
    x = normal(seed, *rows, projection.in_features).requires_grad_()
    weigh = normal(seed + 1, *rows, projection.out_features)
    sources = (x, *projection.parameters())
    expected = F.linear(x, matrix_of(projection))
    came = projection(x)
    torch.testing.assert_close(came, expected, **EXACT)
    gradients = zip(
        torch.autograd.grad((came * weigh).sum(), sources),
        torch.autograd.grad((expected * weigh).sum(), sources),
        strict=True,
    )
    for of_product, of_matrix in gradients:
        torch.testing.assert_close(of_product, of_matrix, **EXACT)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_the_matrix_it_stands_for(name):
    @settings(deadline=None, max_examples=25)
    @given(found=networks(names=(name,)), seed=SEEDS, rows=st.lists(st.integers(0, 3), max_size=3))
    def check(found, seed, rows):
        *_, network = found
        assert_parity(projection_of(network), seed, rows)

    check()


@settings(deadline=None, max_examples=40)
@given(found=networks(), data=st.data())
def test_every_order_computes_the_same(found, data):
    *_, network = found
    names = data.draw(st.permutations(list(network.factors)))
    order = [(name,) for name in names]
    if len(names) > 1 and data.draw(st.booleans()):
        order = [tuple(names[:2]), *order[2:]]
    assert_parity(projection_of(network, order), 5, (2,))


@settings(deadline=None, max_examples=25)
@given(of=modes(), rank=st.integers(1, 4), seed=SEEDS)
def test_both_algorithms_of_kcp_compute_the_same(of, rank, seed):
    ranks = FORMATS["kcp"].uniform(of, rank)
    network = network_of("kcp", of, ranks)
    for order in (mode_by_mode(of, ranks[1]), contract_then_expand(of)):
        assert_parity(projection_of(network, order), seed, (3,))


@settings(deadline=None)
@given(found=networks(), seed=SEEDS)
def test_what_is_added_is_added(found, seed):
    *_, network = found
    projection = projection_of(network)
    x = normal(seed, 4, projection.in_features)
    for size in ((4, projection.out_features), (projection.out_features,)):
        add = normal(seed, *size)
        came = projection.project(x, projection.prepared(), add)
        torch.testing.assert_close(came, projection(x) + add, **EXACT)


@given(found=networks())
def test_macs_are_those_planned(found):
    *_, network = found
    order = best_order(network)
    assert projection_of(network, order).macs == macs(network, order)


def test_macs_of_factors_multiplied_by_each_other_are_counted_apart():
    network = network_of("kcp", Modes((3, 4), (5, 2)), (2, 2))
    projection = projection_of(network, [("in_1", "out_1"), ("in_2",), ("out_2",)])
    assert projection.preparing_macs == 2 * 3 * 5 * 2
    assert projection.macs == 2 * (3 * 5 * 4 + 5 * 4 * 2 + 5 * 2 * 2)


def test_a_description_rebuilds_it_whatever_the_order_of_its_keys():
    network = network_of("hierarchical_tucker", Modes((2, 3, 4), (3, 2, 2)), (2, 3, 4, 3))
    projection = projection_of(network)
    text = json.dumps(projection.description, sort_keys=True)
    rebuilt = Projection(**json.loads(text)).double()
    rebuilt.load_state_dict(projection.state_dict())
    x = normal(0, 5, 24)
    assert torch.equal(rebuilt(x), projection(x))


def test_an_order_has_each_factor_once():
    network = network_of("svd", Modes((4,), (3,)), (2,))
    for order in ([("in_factor",)], [("in_factor",), ("in_factor",), ("out_factor",)]):
        with pytest.raises(ValueError, match="came for the factors"):
            projection_of(network, order)


def test_it_says_what_it_is():
    projection = projection_of(network_of("svd", Modes((4,), (3,)), (2,)))
    assert "4, 3, in_factor (2, 4), out_factor (3, 2)" in repr(projection)
