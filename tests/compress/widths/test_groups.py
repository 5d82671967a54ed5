import pytest
import torch
from torch import nn

from compress.widths.group import ChannelGroup
from compress.widths.groups import ChannelGroups
from tests.compress.widths.networks import (
    Branching,
    CalledTwice,
    Chain,
    ChannelsLast,
    Fixed,
    Grouped,
    Inverted,
    Transposed,
    Viewed,
    X,
    settled,
)


def found(model):
    return ChannelGroups.of(settled(model), X)


def test_of_a_chain_every_layer_but_the_last_has_a_group():
    groups = found(Chain())
    assert groups.groups == (
        ChannelGroup("first", ("norm",), "second", 8),
        ChannelGroup("second", (), "hidden", 8),
        ChannelGroup("hidden", (), "classify", 16),
    )
    assert groups.refusals == {"classify": "its outputs are the network's answers"}


def test_what_asks_for_the_size_of_the_batch_reads_nothing():
    assert [group.producer for group in found(Viewed()).groups] == ["first", "second", "hidden"]


def test_depthwise_convolutions_and_norms_follow():
    groups = found(Inverted())
    assert groups.groups == (ChannelGroup("expand", ("norm", "depthwise", "after"), "project", 12),)
    assert "2 operations read its outputs" in groups.refusals["stem"]
    assert "add takes in its outputs" in groups.refusals["project"]


@pytest.mark.parametrize(
    ("network", "layer", "reason"),
    [
        (Fixed, "second", "without some of its outputs the network fails"),
        (ChannelsLast, "second", "permute takes in its outputs"),
        (Transposed, "second", "repeat takes in its outputs"),
        (Grouped, "first", "second, Conv2d, takes in its outputs"),
        (CalledTwice, "hidden", "2 operations read its outputs"),
    ],
)
def test_what_may_mix_channels_is_refused_with_the_reason(network, layer, reason):
    groups = found(network())
    assert reason in groups.refusals[layer]
    assert layer not in [group.producer for group in groups.groups]


class Rearranged(Chain):
    """By an operation that leaves channels apart, as it is mostly used."""

    def forward(self, x):
        return self.classify(self.hidden(self.features(x).view(-1, 16, 8).flatten(1)))


class Halved(Chain):
    """Sees half of the features whatever came: what is read is no channel as a whole."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 16)

    def forward(self, x):
        return self.classify(self.hidden(self.features(x).view(-1, 8, 4, 4).mean((2, 3))))


def test_a_view_to_numbers_is_found_by_trying():
    for network in (Rearranged, Halved):
        assert "second" in found(network()).refusals


def test_a_network_that_cannot_be_traced_says_why():
    groups = found(Branching())
    assert groups.groups == ()
    assert "it cannot be traced" in groups.refusals[""]


def test_the_network_is_left_as_it_is():
    model = settled(Chain())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ChannelGroups.of(model.train(), X)
    assert model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
