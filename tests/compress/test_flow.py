import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.flow import Flow
from compress.plan import Choice, Plan
from compress.surgery import factorize_

X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two layers in a row; what its subclasses do differently breaks the link."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.second(self.first(x))


class Product(nn.Module):
    def forward(self, x, y):
        return x * y


class ReadTwice(Net):
    def forward(self, x):
        y = self.first(x)
        return self.second(y) + y


class ReadByAFunction(Net):
    def forward(self, x):
        return self.second(F.relu(self.first(x)))


class ReadThroughAView(Net):
    def forward(self, x):
        return self.second(self.first(x).flip(2))


class ReadWithMore(Net):
    def __init__(self):
        super().__init__()
        self.second = Product()

    def forward(self, x):
        return self.second(self.first(x), x)


class FirstCalledTwice(Net):
    def forward(self, x):
        return self.second(self.first(self.first(x).tanh()))


class SecondCalledTwice(Net):
    def forward(self, x):
        return self.second(self.first(x)) + self.second(x)


class WeightRead(Net):
    def forward(self, x):
        return self.second(self.first(x)) * self.first.weight.mean()


class BufferRead(Net):
    def __init__(self):
        super().__init__()
        self.second = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.second(self.first(x)) + self.second.running_mean.mean()


class WeightShared(Net):
    def __init__(self):
        super().__init__()
        self.third = nn.Conv2d(4, 4, 1)
        self.third.weight = self.first.weight

    def forward(self, x):
        return self.third(super().forward(x).tanh())


class TwoNames(Net):
    def __init__(self):
        super().__init__()
        self.other = self.first


class Hooked(Net):
    def __init__(self):
        super().__init__()
        self.first.register_forward_hook(lambda _module, _inputs, y: y + 1)


class PreHooked(Net):
    def __init__(self):
        super().__init__()
        self.second.register_forward_pre_hook(lambda _module, inputs: (inputs[0] + 1,))


BREAKING = [
    ReadTwice,
    ReadByAFunction,
    ReadThroughAView,
    ReadWithMore,
    FirstCalledTwice,
    SecondCalledTwice,
    WeightRead,
    BufferRead,
    WeightShared,
    TwoNames,
    Hooked,
    PreHooked,
]


def test_a_layer_that_one_other_reads_is_linked_with_it():
    flow = Flow.of(Net(), X)
    assert flow == Flow({"first": "second"}, {"first": 4}, None)


def test_the_order_of_the_modules_means_nothing():
    class Turned(Net):
        def forward(self, x):
            return self.first(self.second(x))

    assert Flow.of(Turned(), X).readers == {"second": "first"}


@pytest.mark.parametrize("kind", BREAKING)
def test_a_layer_that_something_else_sees_is_not(kind):
    flow = Flow.of(kind().eval(), X)
    assert "first" not in flow.readers
    assert flow.reason is None


def test_a_factorised_layer_is_one_module():
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 4, 1), nn.ReLU())
    before = Flow.of(model, X)
    factorize_(model, Plan({"0": Choice("svd", (3,))}))
    assert Flow.of(model, X) == before
    assert before.readers == {"0": "1", "1": "2"}


def test_a_network_that_decides_by_its_inputs_gives_no_link_and_the_reason():
    class Deciding(Net):
        def forward(self, x):
            return self.first(x) if x.sum() > 0 else super().forward(x)

    flow = Flow.of(Deciding(), X)
    assert flow.readers == {}
    assert flow.reason.startswith("it cannot be traced: TraceError")


def test_the_network_is_left_as_it_was():
    class Remembering(Net):
        seen = ()

        def forward(self, x):
            self.seen = (*self.seen, self.first(x))
            return self.second(self.seen[-1])

    model = Remembering().train()
    model.first.eval()
    Flow.of(model, X)
    assert [type(tensor) for tensor in model.seen] == [torch.Tensor]  # no symbol among them
    assert (model.training, model.first.training) == (True, False)
    assert not any(module._forward_hooks for module in model.modules())
