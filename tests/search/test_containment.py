import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.equivalent import dense_weight
from compress.methods.method import weight_size
from compress.methods.registry import METHODS
from compress.plan import Choice
from compress.shape import ConvShape
from search.containment import contains

SHAPE = ConvShape(in_channels=6, out_channels=8, kernel_size=(3, 3))
# Of a kernel's norm: what float64 leaves of an exact decomposition.
ROUND_OFF = 1e-10


def choices(method):
    limits = METHODS[method].limits(SHAPE)
    ranks = st.tuples(*(st.integers(1, min(limit, 8)) for limit in limits))
    return ranks.map(lambda found: Choice(method, found))


any_choice = st.sampled_from(sorted(METHODS)).flatmap(choices)


def held_by(choice):
    """A kernel that a choice can hold: its stages filled at random."""
    stages = METHODS[choice.method].stages(SHAPE, choice.ranks)
    generator = torch.Generator().manual_seed(0)
    factors = {
        stage.name: torch.randn(weight_size(stage.shape), dtype=torch.float64, generator=generator)
        for stage in stages
    }
    return dense_weight(SHAPE, stages, factors)


def ranks_of(kernel):
    """To outputs, to inputs, and of (inputs, rows) by (outputs, columns)."""
    outputs, inputs, rows, columns = kernel.shape
    spatial = kernel.permute(1, 2, 0, 3).reshape(inputs * rows, outputs * columns)
    matrices = (kernel.flatten(1), kernel.transpose(0, 1).flatten(1), spatial)
    return [int(torch.linalg.matrix_rank(matrix, rtol=ROUND_OFF)) for matrix in matrices]


@settings(max_examples=150, deadline=None)
@given(larger=any_choice, smaller=any_choice)
def test_what_is_contained_has_the_ranks_that_the_larger_form_needs(larger, smaller):
    """A kernel of these ranks has an exact form, since each of them is one truncated SVD."""
    if not contains(larger, smaller) or larger.method.startswith("cp"):
        return
    outputs, inputs, spatial = ranks_of(held_by(smaller))
    if larger.method == "svd":
        assert outputs <= larger.ranks[0]
    elif larger.method == "tucker2":
        assert outputs <= larger.ranks[0]
        assert inputs <= larger.ranks[1]
    else:
        assert spatial <= larger.ranks[0]


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("other", sorted(METHODS))
def test_what_is_not_contained_at_equal_ranks_has_a_kernel_that_does_not_fit(method, other):
    larger = Choice(method, (2,) * len(METHODS[method].limits(SHAPE)))
    smaller = Choice(other, (2,) * len(METHODS[other].limits(SHAPE)))
    outputs, inputs, spatial = ranks_of(held_by(smaller))
    fits = {
        "svd": outputs <= 2,
        "tucker2": outputs <= 2 and inputs <= 2,
        "spatial_svd": spatial <= 2,
        # a sum of two outer products, over all places or over rows and columns
        "cp3": other in ("cp3", "cp4"),
        "cp4": other == "cp4",
    }
    assert contains(larger, smaller) is fits[method]


@settings(max_examples=50, deadline=None)
@given(choice=any_choice)
def test_every_choice_contains_itself_and_its_smaller_self(choice):
    assert contains(choice, choice)
    halved = Choice(choice.method, tuple(math.ceil(rank / 2) for rank in choice.ranks))
    assert contains(choice, halved)
    if halved != choice:
        assert not contains(halved, choice)
