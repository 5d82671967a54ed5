import pytest
import torch
from torch import nn

from compress.errors import PlanError
from compress.load import build_stand_in, replace_
from compress.widths.group import ChannelGroup
from compress.widths.narrower import Narrower
from compress.widths.narrowing import is_narrowed, narrow_, row_of
from compress.widths.selection import greedy_order, select
from tests.compress.widths.networks import Chain, Inverted, X, settled


def narrower(model):
    return Narrower(model, X, [X])


def zeroed(model, layer, channels):
    """With what a layer puts out set to zero, for some channels."""

    def hook(_module, _inputs, output):
        output = output.clone()
        output[:, channels] = 0
        return output

    model.get_submodule(layer).register_forward_hook(hook)
    return model


@pytest.mark.parametrize(
    ("network", "group", "last"),
    [
        (Chain, ChannelGroup("first", ("norm",), "second", 8), "norm"),
        (Chain, ChannelGroup("second", (), "hidden", 8), "second"),
        (Chain, ChannelGroup("hidden", (), "classify", 16), "hidden"),
        (Inverted, ChannelGroup("expand", ("norm", "depthwise", "after"), "project", 12), "after"),
    ],
)
def test_without_mixing_the_others_count_as_zero(network, group, last):
    model, narrow = settled(network()).double(), settled(network()).double()
    kept = torch.tensor([0, 2, 3, 7])
    narrow_(narrow, group, kept)
    others = [c for c in range(group.channels) if c not in kept.tolist()]
    with torch.no_grad():
        wanted = zeroed(model, last, others)(X.double())
        torch.testing.assert_close(narrow(X.double()), wanted)


@pytest.mark.parametrize("network", [Chain, Inverted])
def test_all_channels_give_the_same_network(network):
    model = settled(network())
    made = narrower(model)
    widths = {name: group.channels for name, group in made.groups.items()}
    with torch.no_grad():
        torch.testing.assert_close(made.network(widths)(X), model(X), rtol=1e-4, atol=1e-5)


def test_channels_that_depend_on_others_are_taken_out_without_loss():
    """Ten of sixteen features are sums of the other six, before a layer that reads all of them."""
    torch.manual_seed(1)
    basis = torch.randn(6, 128, dtype=torch.float64)
    sums = torch.randn(16, 6, dtype=torch.float64)
    reading = nn.Sequential(nn.Linear(128, 16), nn.Linear(16, 5)).double()
    with torch.no_grad():
        reading[0].weight.copy_(sums @ basis)
        reading[0].bias.copy_(sums @ torch.randn(6, dtype=torch.float64))
    inputs = torch.randn(64, 128, dtype=torch.float64)
    made = Narrower(reading.eval(), inputs, [inputs])
    narrow = made.network({"0": 6})
    assert narrow[0].out_features == narrow[1].in_features == 6
    with torch.no_grad():
        torch.testing.assert_close(narrow(inputs), reading(inputs), rtol=1e-3, atol=1e-4)


def similar():
    """Every channel of the first layer is nearly one of four."""
    model = Chain()
    with torch.no_grad():
        model.first.weight[4:] = model.first.weight[:4] + 0.01 * model.first.weight[4:]
        model.first.bias[4:] = model.first.bias[:4]
    return settled(model)


def test_mixing_is_nearer_than_leaving_out_at_the_readers_outputs():
    model = similar()
    group = narrower(model).groups["first"]
    selection = select(model, [group], [X])["first"]

    def outputs(network):
        found = []
        network.second.register_forward_hook(lambda _module, _inputs, output: found.append(output))
        with torch.no_grad():
            network(X)
        return found[0]

    def error(mixing):
        network = similar()
        narrow_(network, group, selection.kept(4), mixing)
        return float((outputs(network) - outputs(model)).square().mean())

    assert error(selection.mixing(4)) < 0.1 * error(None)


def test_the_order_leaves_the_least_of_what_the_reader_feels():
    """By hand: the second channel says all of the third, and the reader does not feel the first."""
    moment = torch.tensor([[9.0, 0, 0], [0, 2, 2], [0, 2, 2]], dtype=torch.float64)
    felt = torch.diag(torch.tensor([0.01, 1, 1], dtype=torch.float64))
    assert greedy_order(moment, felt).tolist() == [1, 0, 2]
    assert greedy_order(moment, torch.eye(3, dtype=torch.float64)).tolist() == [0, 1, 2]


def test_channels_that_are_always_zero_come_last_and_do_no_harm():
    model = settled(Chain())
    with torch.no_grad():
        model.norm.weight[:3] = 0
        model.norm.bias[:3] = -1  # the ReLU lets nothing through
    made = narrower(model)
    selection = select(model, [made.groups["first"]], [X])["first"]
    assert sorted(selection.order[-3:].tolist()) == [0, 1, 2]
    with torch.no_grad():
        torch.testing.assert_close(made.network({"first": 5})(X), model(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", [Chain, Inverted])
def test_what_is_written_of_narrowed_modules_builds_them_again(network):
    model, again = settled(network()), network()
    made = narrower(model)
    narrow = made.network({name: group.channels // 2 for name, group in made.groups.items()})
    rows = {name: [row_of(m)] for name, m in narrow.named_modules() if is_narrowed(m)}
    assert set(rows) == {
        name
        for group in made.groups.values()
        for name in (group.producer, *group.followers, group.reader)
    }
    replace_(again, {name: build_stand_in(each) for name, each in rows.items()})
    again.load_state_dict(narrow.state_dict(), assign=True)
    with torch.no_grad():
        assert torch.equal(again.eval()(X), narrow(X))


def test_modules_keep_their_mode_dtype_and_wish_for_gradients():
    model = settled(Chain()).double().requires_grad_(False)
    found = Narrower(model, X.double(), [X.double()]).network({"first": 4, "second": 4})
    for name in ("first", "norm", "second", "hidden"):
        module = found.get_submodule(name)
        assert not module.training
        for parameter in module.parameters():
            assert parameter.dtype == torch.float64
            assert not parameter.requires_grad


@pytest.mark.parametrize(
    ("widths", "sentence"),
    [
        ({"classify": 2}, "'classify' cannot be narrowed: its outputs are the network's answers"),
        ({"none": 2}, "'none' cannot be narrowed: it is no plain layer of the network"),
        ({"first": 9}, "'first': width 9 came, 1 to 8 was wanted"),
    ],
)
def test_other_widths_are_refused(widths, sentence):
    with pytest.raises(PlanError, match=sentence):
        narrower(settled(Chain())).network(widths)
