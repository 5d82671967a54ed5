import pytest

from benchmarks import support


@pytest.fixture(scope="module")
def found():
    return support.supports()


def test_every_parameter_of_every_network_is_accounted_for(found):
    for network in found:
        shaped = [r for r in network.reports if r.shape is not None]
        assert all(r.reason is not None for r in network.reports if r.shape is None)
        assert sum(r.shape.parameters for r in shaped) <= network.parameters
        assert len({r.name for r in network.reports}) == len(network.reports)


def test_the_page_says_what_inspect_says(found):
    wanted = support.page(found)
    assert support.PAGE.read_text() == wanted, "docs/support.md differs: run `make results`"


def test_a_network_is_named_with_what_stays_dense_and_why(found):
    rows = {network.architecture: network.row for network in found}
    assert rows["vgg11"] == "| vgg11 | 11 | 100.0% |  |"
    assert "MultiheadAttention: only" in rows["vit_b_16"]
