from collections import defaultdict

import pytest
import torch

from compress.kernels import kernel_size
from compress.memory import VALUE_BYTES, moment_bytes, peak_bytes
from compress.methods.registry import METHODS
from compress.shape import ConvShape, LinearShape

CONV = ConvShape(in_channels=96, out_channels=128, kernel_size=(3, 3))
LINEAR = LinearShape(in_features=864, out_features=128)
FOLDED = ("kronecker", "semi_tensor", "hierarchical_tucker")
SHAPES = {name: CONV if METHODS[name].obstacle(CONV) is None else LINEAR for name in METHODS}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("data_aware", [False, True])
def test_the_estimate_grows_with_the_ranks_and_holds_what_goes_in_and_comes_out(name, data_aware):
    method, shape = METHODS[name], SHAPES[name]
    weight, moment = torch.zeros(kernel_size(shape)), 864**2 if data_aware else 0
    estimates = defaultdict(list)
    for ranks in method.grid(shape):
        factors = method.decompose(shape, weight, None).factors(ranks)
        least = weight.numel() + moment + sum(factor.numel() for factor in factors.values())
        slices = ranks[1:] if name in FOLDED else ()
        estimates[slices].append(peak_bytes(shape, name, ranks, data_aware=data_aware))
        assert estimates[slices][-1] > VALUE_BYTES * least
    assert all(found == sorted(found) for found in estimates.values())


@pytest.mark.parametrize("name", METHODS)
def test_the_norm_of_the_data_needs_more(name):
    shape = SHAPES[name]
    ranks = METHODS[name].grid(shape)[-1]
    plain, aware = (peak_bytes(shape, name, ranks, data_aware=aware) for aware in (False, True))
    assert aware > plain + VALUE_BYTES * 864**2


def test_the_figures_of_a_layer_by_hand():
    # svd of a linear layer: 4 weights, 5 Gram matrices, less than 3 weights and 2.5 moments
    shape = LinearShape(in_features=100, out_features=10)
    assert peak_bytes(shape, "svd", (4,), data_aware=False) == 8 * (4 * 1000 + 5 * 100)
    assert peak_bytes(shape, "svd", (4,), data_aware=True) == 8 * (3 * 1000 + 25_000)
    assert moment_bytes(shape) == 8 * 3 * 100**2


def test_what_is_fitted_as_tucker2_needs_as_much_at_its_greatest_rank():
    def needed(name, ranks):
        return peak_bytes(CONV, name, ranks, data_aware=True)

    assert needed("another", (64, 48)) == needed("tucker2", (48, 64))
    assert needed("tensor_train", (32, 80, 48)) == needed("tucker2", (48, 80))
    assert needed("block_term", (16, 12, 4)) == needed("tucker2", (48, 64))


def test_of_three_axes_spatial_svd_parts_the_first():
    volume = ConvShape(in_channels=16, out_channels=32, kernel_size=(3, 3, 5))
    image = ConvShape(in_channels=16, out_channels=32, kernel_size=(3, 15))
    for data_aware in (False, True):
        found, wanted = (
            peak_bytes(shape, "spatial_svd", (16,), data_aware=data_aware)
            for shape in (volume, image)
        )
        assert found == wanted


def test_cp_of_512_channels_at_rank_512_stays_within_2_gib():
    wide = ConvShape(in_channels=512, out_channels=512, kernel_size=(3, 3))
    assert peak_bytes(wide, "cp3", (512,), data_aware=True) <= 2 * 2**30
