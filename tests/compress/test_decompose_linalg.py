import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.decompose.linalg import (
    check_ranks,
    conjugate_gradient,
    conjugate_gradient_through,
    kronecker_factors,
    kronecker_likelihood,
    regression,
    roots,
    unfold,
)
from compress.errors import RankError
from tests.strategies import SEEDS, normal, second_moment

# Float64 round-off of products and solutions of a dozen rows, with room for their conditions.
EXACT = {"rtol": 1e-8, "atol": 1e-8}


@pytest.mark.parametrize("ranks", [(0, 3), (9, 3), (4, 7), (4,), (4, 3, 1), (4.0, 3), (True, 3)])
def test_ranks_outside_their_limits_are_refused_with_both(ranks):
    with pytest.raises(RankError, match=r"between 1 and \(8, 6\)") as caught:
        check_ranks(ranks, (8, 6))
    assert f"ranks {ranks} came" in str(caught.value)


def test_ranks_may_reach_their_limits():
    check_ranks((8, 1), (8, 6))


def test_an_unfolding_puts_its_mode_first_and_keeps_the_order_of_the_rest():
    tensor = torch.arange(24).reshape(2, 3, 4)
    assert torch.equal(unfold(tensor, 1)[2], tensor[:, 2].flatten())


@given(seed=SEEDS)
def test_a_root_squares_to_its_moment_and_its_inverse_undoes_it(seed):
    moment = second_moment(normal(seed, 30, 6))
    root, inverse = roots(moment)
    torch.testing.assert_close(root @ root, moment, **EXACT)
    torch.testing.assert_close(inverse @ root, torch.eye(6, dtype=torch.float64), **EXACT)


def test_roots_of_a_singular_moment_are_finite():
    root, inverse = roots(torch.diag(torch.tensor([4.0, 0.0], dtype=torch.float64)))
    assert root[0, 0] == pytest.approx(2)
    assert inverse.isfinite().all()


@given(seed=SEEDS)
def test_a_kronecker_product_is_found_again(seed):
    rows, columns = second_moment(normal(seed, 9, 4)), second_moment(normal(seed + 1, 9, 3))
    found_rows, found_columns = kronecker_factors(torch.kron(rows, columns), 4, 3)
    torch.testing.assert_close(
        torch.kron(found_rows, found_columns), torch.kron(rows, columns), **EXACT
    )


@given(seed=SEEDS)
def test_without_ridge_a_regression_is_the_least_squares_solution(seed):
    inputs, outputs = normal(seed, 40, 5), normal(seed + 1, 40, 3)
    fitted, _ = regression(
        inputs.T @ inputs, outputs.T @ inputs, torch.zeros(3, 5, dtype=torch.float64), ridge=0
    )
    torch.testing.assert_close(fitted.T, torch.linalg.lstsq(inputs, outputs).solution, **EXACT)


@settings(deadline=None)
@given(seed=SEEDS, ridge=st.sampled_from([1e-8, 1e-3, 1.0]), count=st.integers(1, 8))
def test_a_regression_never_loses_against_its_start(seed, ridge, count):
    inputs, outputs, start = normal(seed, count, 5), normal(seed + 1, count, 3), normal(seed, 3, 5)
    fitted, _ = regression(inputs.T @ inputs, outputs.T @ inputs, start, ridge)

    def loss(weight):
        return (inputs @ weight.T - outputs).square().sum()

    assert loss(fitted) <= loss(start) + 1e-9


def test_what_the_data_leave_open_keeps_the_value_of_the_start():
    gram = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    cross = torch.tensor([[3.0, 0.0]], dtype=torch.float64)
    start = torch.tensor([[7.0, 7.0]], dtype=torch.float64)
    fitted, _ = regression(gram, cross, start)
    torch.testing.assert_close(fitted, torch.tensor([[3.0, 7.0]]).double(), rtol=0, atol=1e-5)
    untouched, _ = regression(torch.zeros_like(gram), torch.zeros_like(cross), start)
    torch.testing.assert_close(untouched, start)


def test_an_indefinite_matrix_gets_a_larger_ridge():
    gram = torch.diag(torch.tensor([1.0, -1e-4], dtype=torch.float64))
    cross = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    fitted, shift = regression(gram, cross, torch.zeros_like(cross))
    assert shift > 1e-4
    assert fitted.isfinite().all()


def test_a_matrix_of_nothing_but_round_off_gets_a_ridge():
    gram = torch.tensor([[-1e-17]], dtype=torch.float64)
    fitted, shift = regression(gram, torch.zeros_like(gram), torch.ones_like(gram))
    assert shift > 1e-17
    assert fitted.isfinite().all()


@given(seed=SEEDS)
def test_conjugate_gradients_reach_the_solution_in_as_many_steps_as_unknowns(seed):
    matrix = second_moment(normal(seed, 20, 6)) + torch.eye(6, dtype=torch.float64)
    target = normal(seed, 6, 1)
    ones = torch.ones(1, 1, dtype=torch.float64)
    found = conjugate_gradient(
        lambda x: matrix @ x, target, torch.zeros_like(target), (torch.eye(6).double(), ones), 6
    )
    expected = torch.linalg.solve(matrix, target)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # the ridge leaves 1e-6


@given(seed=SEEDS)
def test_each_step_of_conjugate_gradients_lowers_the_loss(seed):
    left, right = second_moment(normal(seed, 9, 4)), second_moment(normal(seed + 1, 9, 3))
    matrix = torch.kron(left, right) + second_moment(normal(seed + 2, 20, 12))
    target = matrix @ normal(seed, 12, 1)
    losses = []
    for steps in range(5):
        x = conjugate_gradient(
            lambda x: (matrix @ x.reshape(12, 1)).reshape(4, 3),
            target.reshape(4, 3),
            torch.ones(4, 3, dtype=torch.float64),
            (left, right),
            steps,
        ).reshape(12, 1)
        losses.append(float((x * (matrix @ x - 2 * target)).sum()))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


@given(seed=SEEDS)
def test_conjugate_gradients_stay_at_a_solution(seed):
    """Also where round-off meets directions that nothing holds."""
    left, right = second_moment(normal(seed, 1, 4)), second_moment(normal(seed + 1, 1, 3))
    start = normal(seed + 2, 4, 3)
    for scale in (1, 0):
        target = scale * left @ start @ right
        found = conjugate_gradient(
            lambda x, scale=scale: scale * left @ x @ right, target, start, (left, right), 9
        )
        torch.testing.assert_close(found, start, rtol=0, atol=1e-6)


@given(seed=SEEDS)
def test_a_kronecker_product_is_the_likeliest_of_itself(seed):
    rows, columns = second_moment(normal(seed, 30, 4)), second_moment(normal(seed + 1, 30, 3))
    found = torch.kron(*kronecker_likelihood(torch.kron(rows, columns), 4, 3))
    # its inverses are floored at 1e-6 of the mean variance
    torch.testing.assert_close(found, torch.kron(rows, columns), rtol=1e-3, atol=1e-4)


@given(seed=SEEDS)
def test_the_likeliest_kronecker_product_is_likelier_than_that_of_the_traces(seed):
    moment = second_moment(normal(seed, 60, 12) @ normal(seed + 1, 12, 12))

    def surprise(rows, columns):
        guess = torch.kron(rows, columns)
        return torch.logdet(guess) + (torch.linalg.inv(guess) * moment).sum()

    found, traces = (f(moment, 4, 3) for f in (kronecker_likelihood, kronecker_factors))
    assert surprise(*found) < surprise(*traces)


@given(seed=SEEDS)
def test_conjugate_gradients_through_a_half_return_the_half_of_their_solution(seed):
    root = normal(seed, 9, 6)
    found, half = conjugate_gradient_through(
        lambda x: root @ x,
        lambda y: root.T @ y,
        normal(seed + 1, 6, 1),
        (torch.zeros(6, 1).double(), torch.zeros(9, 1).double()),
        kronecker=(torch.eye(6).double(), torch.ones(1, 1).double()),
        steps=3,
    )
    assert found.any()
    torch.testing.assert_close(half, root @ found, **EXACT)
