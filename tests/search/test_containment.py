import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.equivalent import dense_weight
from compress.kernels import weight_size
from compress.methods.registry import METHODS
from compress.plan import Choice
from compress.shape import ConvShape, weighted
from search.containment import contains
from tests.strategies import normal, ranks_of

SHAPE = ConvShape(in_channels=6, out_channels=8, kernel_size=(3, 3))
# Of a kernel's norm: what float64 leaves of an exact decomposition.
ROUND_OFF = 1e-10


def choices(method):
    ranks = ranks_of(METHODS[method], SHAPE, most=8)
    return ranks.map(lambda found: Choice(method, found))


TAKEN = sorted(name for name in METHODS if METHODS[name].obstacle(SHAPE) is None)
any_choice = st.sampled_from(TAKEN).flatmap(choices)


def held_by(choice):
    """A kernel that a choice can hold: its stages filled at random."""
    stages = METHODS[choice.method].stages(SHAPE, choice.ranks)
    generator = torch.Generator().manual_seed(0)
    factors = {
        name: torch.randn(weight_size(shape), dtype=torch.float64, generator=generator)
        for name, shape in weighted(stages)
    }
    return dense_weight(SHAPE, stages, factors)


def unfolded_ranks(kernel):
    """To outputs, to inputs, and of (inputs, rows) by (outputs, columns)."""
    outputs, inputs, rows, columns = kernel.shape
    spatial = kernel.permute(1, 2, 0, 3).reshape(inputs * rows, outputs * columns)
    matrices = (kernel.flatten(1), kernel.transpose(0, 1).flatten(1), spatial)
    return [int(torch.linalg.matrix_rank(matrix, rtol=ROUND_OFF)) for matrix in matrices]


@settings(max_examples=150, deadline=None)
@given(larger=any_choice, smaller=any_choice)
def test_what_is_contained_has_the_ranks_that_the_larger_form_needs(larger, smaller):
    """A kernel of these ranks has an exact form, since each of them is one truncated SVD.

    For block terms they are only necessary; the next tests build the forms.
    """
    if not contains(larger, smaller) or larger.method.startswith("cp"):
        return
    outputs, inputs, spatial = unfolded_ranks(held_by(smaller))
    if larger.method == "kronecker":
        terms, out, into = larger.ranks
        parts = held_by(smaller).reshape(out, 8 // out, 6 // into, into, 9)
        rows = parts.permute(1, 3, 0, 2, 4).reshape(8 // out * into, -1)
        assert torch.linalg.matrix_rank(rows, rtol=ROUND_OFF) <= terms
    elif larger.method == "svd":
        assert outputs <= larger.ranks[0]
    elif larger.method == "tucker2":
        assert outputs <= larger.ranks[0]
        assert inputs <= larger.ranks[1]
    elif larger.method == "tensor_train":
        assert inputs <= larger.ranks[0]
        assert spatial <= larger.ranks[1]
        assert outputs <= larger.ranks[2]
    elif larger.method == "block_term":
        rank_out, rank_in, terms = larger.ranks
        assert outputs <= terms * rank_out
        assert inputs <= terms * rank_in
    else:
        assert spatial <= larger.ranks[0]


@pytest.mark.parametrize("method", TAKEN)
@pytest.mark.parametrize("other", TAKEN)
def test_what_is_not_contained_at_equal_ranks_has_a_kernel_that_does_not_fit(method, other):
    larger = Choice(method, (2,) * len(METHODS[method].limits(SHAPE)))
    smaller = Choice(other, (2,) * len(METHODS[other].limits(SHAPE)))
    outputs, inputs, spatial = unfolded_ranks(held_by(smaller))
    fits = {
        "svd": outputs <= 2,
        "tucker2": outputs <= 2 and inputs <= 2,
        "spatial_svd": spatial <= 2,
        # a sum of two outer products, over all places or over rows and columns
        "cp3": other in ("cp3", "cp4"),
        "cp4": other == "cp4",
        "tensor_train": outputs <= 2 and inputs <= 2 and spatial <= 2,
        # a sum of two Tucker-2 of two and two: whatever is one such, or two
        "block_term": other not in ("svd", "spatial_svd", "kronecker"),
        "kronecker": other == "kronecker",
    }
    assert contains(larger, smaller) is fits[method]


BLOCKS = Choice("block_term", (4, 3, 2))


@pytest.mark.parametrize(
    ("smaller", "fits"),
    [
        (Choice("tucker2", (4, 3)), True),
        (Choice("tucker2", (8, 3)), True),  # its core cut between the outputs
        (Choice("tucker2", (4, 6)), True),  # between the inputs
        (Choice("tucker2", (8, 6)), False),  # four blocks
        (Choice("tensor_train", (3, 9, 8)), True),
        (Choice("tensor_train", (4, 9, 8)), False),
        (Choice("cp3", (6,)), True),  # three terms to a block
        (Choice("cp4", (7,)), False),
        (Choice("block_term", (2, 1, 4)), True),  # two to a block
        (Choice("block_term", (2, 2, 3)), False),
        (Choice("block_term", (8, 3, 1)), True),
        (Choice("block_term", (8, 3, 2)), False),
        (Choice("svd", (1,)), False),
        (Choice("spatial_svd", (1,)), False),
    ],
    ids=str,
)
def test_blocks_hold_what_can_be_cut_or_gathered_into_them(smaller, fits):
    assert contains(BLOCKS, smaller) is fits


def test_the_core_of_a_tucker2_is_cut_into_blocks():
    kernel = held_by(Choice("tucker2", (8, 3)))
    left, core, right = METHODS["tucker2"].decompose(SHAPE, kernel, None).factors((8, 3)).values()
    blocks = {
        "reduce": torch.cat([left, left]),  # both terms read the same inputs
        "core": core,
        "expand": right,
    }
    stages = METHODS["block_term"].stages(SHAPE, BLOCKS.ranks)
    torch.testing.assert_close(dense_weight(SHAPE, stages, blocks), kernel)


def test_terms_are_gathered_into_blocks():
    small = Choice("block_term", (2, 1, 4))
    stages = METHODS["block_term"].stages(SHAPE, small.ranks)
    factors = {stage.name: normal(0, *weight_size(stage.shape)) for stage in stages}
    blocks = torch.zeros(2, 4, 3, 3, 3, dtype=torch.float64)  # (terms, out, in, kh, kw)
    for term, core in enumerate(factors["core"].reshape(4, 2, 1, 3, 3)):
        place = term % 2
        blocks[term // 2, 2 * place : 2 * place + 2, place] = core[:, 0]
    reduce = torch.zeros(6, 6, 1, 1, dtype=torch.float64)
    reduce[[0, 1, 3, 4]] = factors["reduce"]  # each block leaves one input open
    gathered = {"reduce": reduce, "core": blocks.flatten(0, 1), "expand": factors["expand"]}
    larger = METHODS["block_term"].stages(SHAPE, BLOCKS.ranks)
    torch.testing.assert_close(
        dense_weight(SHAPE, larger, gathered), dense_weight(SHAPE, stages, factors)
    )


@settings(max_examples=50, deadline=None)
@given(choice=any_choice)
def test_every_choice_contains_itself_and_its_smaller_self(choice):
    assert contains(choice, choice)
    free = 1 if choice.method == "kronecker" else len(choice.ranks)  # the others are slices
    ranks = *(math.ceil(rank / 2) for rank in choice.ranks[:free]), *choice.ranks[free:]
    halved = Choice(choice.method, ranks)
    assert contains(choice, halved)
    if halved != choice:
        assert not contains(halved, choice)


@pytest.mark.parametrize(
    ("larger", "smaller", "fits"),
    [
        (Choice("semi_tensor", (8, 2)), Choice("semi_tensor", (7, 2)), True),
        (Choice("semi_tensor", (8, 2)), Choice("semi_tensor", (9, 2)), False),
        (Choice("semi_tensor", (8, 4)), Choice("semi_tensor", (8, 2)), False),  # other slices
        (Choice("kronecker", (8, 2, 2)), Choice("kronecker", (8, 2, 1)), False),
        (Choice("kronecker", (8, 1, 2)), Choice("semi_tensor", (8, 2)), False),
        (
            Choice("hierarchical_tucker", (9, 2, 3, 4, 5)),
            Choice("hierarchical_tucker", (9, 2, 3, 3, 5)),
            True,
        ),
        (
            Choice("hierarchical_tucker", (9, 2, 3, 4, 5)),
            Choice("hierarchical_tucker", (9, 2, 3, 5, 5)),
            False,
        ),
        (Choice("svd", (8,)), Choice("semi_tensor", (1, 2)), False),
    ],
    ids=str,
)
def test_what_is_folded_holds_the_same_folding_at_smaller_ranks(larger, smaller, fits):
    assert contains(larger, smaller) is fits
