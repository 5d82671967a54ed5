import math

import pytest

from search.config import EstimationConfig
from search.errors import EnumerationError
from search.song import SongSearch
from search.strategy import best, search
from tests.search.tables import Additive, all_points, layer, row, synthetic, table


def cp_layer(name: str, kernel: tuple[int, int, int, int]):
    """A convolution with every CP-4 rank that has fewer parameters than dense."""
    weights, component = math.prod(kernel), sum(kernel)
    ranks = range((weights - 1) // component, 0, -1)
    rows = [
        row(
            loss=1 / (1 + rank),
            latency_ms=0.1 + rank * component / weights,
            parameters=rank * component,
        )
        for rank in ranks
    ]
    return layer(name, 2.0, weights, *rows)


# The networks of the paper: kernels of its two convolutions.
MNIST = table(cp_layer("conv1", (5, 5, 1, 32)), cp_layer("conv2", (5, 5, 32, 64)))
CIFAR = table(cp_layer("conv1", (5, 5, 3, 64)), cp_layer("conv2", (5, 5, 64, 64)))


@pytest.mark.parametrize("network", [MNIST, CIFAR])
def test_the_networks_of_the_paper_are_bisected_in_eight_evaluations(network):
    """log2((sum Num_W - 1) / (2 sum S)), rounded up: 8 for both."""
    strategy = SongSearch(network, EstimationConfig(by="parameters", max_group_points=10**6))
    loss = network.loss((network.sizes[0] - 5, network.sizes[1] - 30))
    truth = Additive(network, allowed=0.1 * loss)
    asks = []
    while points := strategy.ask():
        asks.append(points)
        strategy.tell(truth(points))
    assert all(len(points) == 1 for points in asks[:8])
    assert len(asks[8]) > 1  # a round of the group search


def test_of_all_combinations_up_to_the_ranks_found_the_fastest_is_kept():
    truth = Additive(MNIST, allowed=0.1 * MNIST.loss((10, 440)))
    strategy = SongSearch(MNIST, EstimationConfig(by="parameters"))
    told = list(search(strategy, truth))
    found, halved = best(told), best(told[:8])
    assert found is not None
    assert halved is not None
    most = halved.point[0]  # choices are held by falling parameters: more ranks, less index
    upto = [
        p for p in all_points(MNIST) if p[0] >= most and p[1] > 0 and truth.costs(p).is_feasible
    ]
    assert found.costs.time_share == min(map(truth.time_share, upto))
    assert found.costs.time_share < halved.costs.time_share


def test_the_group_search_asks_each_combination_in_one_round():
    truth = Additive(MNIST, allowed=0.1 * MNIST.loss((10, 440)))
    strategy = SongSearch(MNIST, EstimationConfig(by="parameters"))
    for _ in range(8):
        strategy.tell(truth(strategy.ask()))
    rounds = []
    while points := strategy.ask():
        rounds.append({point[0] for point in points})
        assert len(rounds[-1]) == len(points)
        strategy.tell(truth(points))
    assert len(rounds) <= MNIST.sizes[1].bit_length()
    assert max(map(len, rounds)) > 1


def test_a_deep_network_is_refused_with_the_number_of_evaluations_and_a_way_out():
    deep = synthetic(layers=20, choices=8)
    truth = Additive(deep, allowed=0.1 * deep.loss((3,) * 20))
    strategy = SongSearch(deep, EstimationConfig(by="parameters", max_group_points=256))
    with pytest.raises(EnumerationError, match="at most 256 are allowed: use by='loss'") as caught:
        list(search(strategy, truth))
    needed = int(str(caught.value).split("would take ")[1].split()[0])
    assert needed > 256


def test_one_layer_is_bisected_alone():
    single = table(cp_layer("conv1", (5, 5, 3, 64)))
    truth = Additive(single, allowed=0.1 * single.loss((20,)))
    found = best(list(search(SongSearch(single, EstimationConfig(by="parameters")), truth)))
    assert found is not None
    assert found.point == (20,)
