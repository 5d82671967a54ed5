import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.calibration import trace
from compress.errors import ProgramError
from compress.export import export_program
from compress.layers import inspect, tied_layers
from compress.plan import Choice, Plan
from compress.program.read import read_program
from compress.surgery import factorize_
from tests.compress.programs import write

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

WORDS = torch.randint(20, (2, 5), generator=torch.Generator().manual_seed(0))


class Recurrent(nn.Module):
    def __init__(self, kind, **arguments):
        super().__init__()
        self.embed = nn.Embedding(20, 8, padding_idx=3)
        self.recurrent = kind(8, 6, batch_first=True, **arguments)
        self.classify = nn.LazyLinear(3)

    def forward(self, x):
        outputs, _ = self.recurrent(self.embed(x))
        return self.classify(outputs[:, -1])


class Everything(nn.Module):
    """(N, 3, 8, 8) -> (N, 4): what else networks for images are made of."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding="valid", bias=False)
        self.norms = nn.ModuleDict({"first": nn.BatchNorm2d(8), "second": nn.GroupNorm(2, 8)})
        self.depthwise = nn.Conv2d(8, 8, 3, padding="same", padding_mode="reflect", groups=8)
        self.up = nn.ConvTranspose2d(8, 6, (2, 3), stride=(2, 1), output_padding=(1, 0), groups=2)
        self.instance = nn.InstanceNorm2d(6, affine=True, track_running_stats=True)
        self.layer = nn.LayerNorm(6)
        self.gain = nn.Parameter(torch.full((6, 1, 1), 0.5))
        self.plain = nn.BatchNorm2d(6, affine=False)
        self.activation = nn.PReLU(6)
        self.drop = nn.Dropout2d(0.5)
        self.classify = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 4))

    def forward(self, x):
        x = F.relu(self.norms["first"](self.stem(x)), inplace=True)
        x = self.norms["second"](self.depthwise(x) + x)
        x = self.instance(self.up(x)) * self.gain
        x = self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.drop(self.activation(self.plain(x)))
        return self.classify(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Attention(nn.Module):
    """(N, 5, 8) -> (N, 8): sizes computed from the batch, a mask, a class token."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.register_buffer("mask", torch.ones(6, 6, dtype=torch.bool).tril(), persistent=False)

    def forward(self, x):
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        y, _ = self.attend(x, x, x, attn_mask=~self.mask, need_weights=False)
        return (x + y).mean(1)


def conv1d():
    return nn.Sequential(
        nn.Conv1d(3, 4, 3, dilation=2), nn.BatchNorm1d(4), nn.ConvTranspose1d(4, 2, 2, 2)
    )


def conv3d():
    return nn.Sequential(
        nn.Conv3d(2, 4, (1, 2, 2)), nn.BatchNorm3d(4), nn.ConvTranspose3d(4, 2, 2), nn.Dropout3d()
    )


NETWORKS = {
    "everything": (Everything, torch.randn(2, 3, 8, 8)),
    "attention": (Attention, torch.randn(2, 5, 8)),
    "conv1d": (conv1d, torch.randn(2, 3, 9)),
    "conv3d": (conv3d, torch.randn(2, 2, 3, 4, 4)),
    "lstm": (lambda: Recurrent(nn.LSTM, num_layers=2, dropout=0.3), WORDS),
    "two-way lstm": (lambda: Recurrent(nn.LSTM, bidirectional=True, bias=False), WORDS),
    "projected lstm": (lambda: Recurrent(nn.LSTM, proj_size=4), WORDS),
    "gru": (lambda: Recurrent(nn.GRU, num_layers=2, bidirectional=True), WORDS),
    "rnn": (lambda: Recurrent(nn.RNN, nonlinearity="relu"), WORDS),
    "float64": (lambda: nn.Sequential(nn.Linear(4, 4)).double(), torch.randn(2, 4).double()),
    "bfloat16": (lambda: nn.Sequential(nn.Linear(4, 4)).bfloat16(), torch.randn(2, 4).bfloat16()),
}
LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.RNNBase, nn.Embedding, nn.PReLU)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def settled(model, x):
    """In eval mode, its parameters made, its statistics those of some batches."""
    torch.manual_seed(1)
    with torch.no_grad():
        for _ in range(3):
            model.train()(x)
        for parameter in model.parameters():
            if parameter.std() == 0:
                parameter.normal_()
    return model.eval()


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request, tmp_path_factory):
    """A network, what came back of it, and an input."""
    make, x = NETWORKS[request.param]
    model = settled(make(), x)
    path = write(model, [x], tmp_path_factory.mktemp("archives") / "model.pt2")
    return model, read_program(path), x


def test_the_same_bits_come_out(pair, monkeypatch):
    model, found, x = pair
    # torch fuses attention in eval mode, with other round-off, and never exports it so.
    monkeypatch.setattr("torch.backends.mha._is_fastpath_enabled", False)
    more = torch.cat([x, x.flip(0), x[:1]])
    with torch.no_grad():
        assert torch.equal(found(x), model(x))
        assert torch.equal(found(more), model(more))
        assert model(x).std() > 0


def test_the_state_dict_is_the_originals(pair):
    model, found, _ = pair
    state, wanted = found.state_dict(), model.state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[key], value) for key, value in wanted.items())
    assert {name for name, _ in found.named_parameters()} == {
        n for n, _ in model.named_parameters()
    }
    model.load_state_dict(state)


def test_layers_stand_under_their_names(pair):
    model, found, _ = pair
    for name, layer in model.named_modules():
        if isinstance(layer, LAYERS + NORMS) and next(layer.parameters(), None) is not None:
            lifted = found.get_submodule(name)
            kind = nn.Linear if isinstance(layer, nn.Linear) else type(layer)
            assert type(lifted) is kind
            if getattr(layer, "padding_mode", "zeros") == "zeros":  # else a node pads before it
                assert repr(lifted) == repr(layer).replace(type(layer).__name__, kind.__name__)


def test_a_step_of_training_is_the_same(pair):
    model, found, x = copy.deepcopy(pair)
    if x.dtype == torch.bfloat16:
        model, found = model.float(), found.float()
        x = x.float()
    ends = []
    for network in (model, found):
        network.train()
        torch.manual_seed(2)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        network(x).square().sum().backward()
        optimizer.step()
        ends.append(network.state_dict())
    changed = [key for key in ends[0] if not torch.equal(ends[0][key], pair[0].state_dict()[key])]
    assert changed
    for key in ends[0]:
        torch.testing.assert_close(ends[1][key], ends[0][key], msg=lambda text, key=key: key + text)


def test_a_copy_is_a_network_of_its_own(pair):
    _, found, x = pair
    with torch.no_grad():
        expected = found(x)
        twin = copy.deepcopy(found)
        assert torch.equal(twin(x), expected)
        for parameter in twin.parameters():
            parameter.zero_()
        assert not torch.equal(twin(x), expected)
        assert torch.equal(found(x), expected)


@pytest.mark.parametrize("pair", ["everything", "attention", "gru"], indirect=True)
def test_what_was_read_can_be_exported_again(pair, tmp_path):
    _, found, x = pair
    again = read_program(write(found, [x], tmp_path / "again.pt2"))
    with torch.no_grad():
        assert torch.equal(again(x), found(x))
    assert again.state_dict().keys() == found.state_dict().keys()


def test_layers_are_factorised_as_in_any_network(tmp_path, tiny):
    x = torch.randn(2, 3, 8, 8)
    found = read_program(write(tiny, [x], tmp_path / "model.pt2"))
    reports = {report.name: report for report in inspect(tiny) if report.shape is not None}
    assert {r.name: r for r in inspect(found) if r.shape is not None} == reports
    assert trace(found, x) == trace(tiny, x)
    plan = Plan({"conv2": Choice("tucker2", (4, 4)), "classify": Choice("svd", (3,))})
    for network in (tiny, found):
        factorize_(network, plan)
    with torch.no_grad():
        assert torch.equal(found(x), tiny(x))
    assert export_program(found, x, tmp_path / "out.pt2") < 1e-5


class Tied(nn.Module):
    """One layer under two names, a weight with two biases, and one that a call reads."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first
        self.other = nn.Linear(4, 4)
        self.other.weight = self.first.weight
        self.read = nn.Linear(4, 4)
        self.never = nn.Linear(4, 2)

    def forward(self, x):
        x = self.other(self.second(self.first(x)))
        return self.read(x) + x * self.read.weight.sum()


def test_what_is_shared_stays_shared(tmp_path):
    model, x = Tied().eval(), torch.randn(2, 4)
    found = read_program(write(model, [x], tmp_path / "model.pt2"))
    assert found.first is found.second
    assert found.other.weight is found.first.weight
    assert found.other.bias is not found.first.bias
    assert tied_layers(found).keys() == {"first", "other"}
    assert trace(found, x)["first"].calls == 2
    assert not isinstance(found.read, nn.Linear)
    assert found.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(found(x), model(x))


class Language(nn.Module):
    """Its last layer has the weight of its first."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.scores = nn.Linear(8, 20, bias=False)
        self.scores.weight = self.embed.weight

    def forward(self, x):
        return self.scores(self.embed(x).mean(1))


def test_layers_of_two_kinds_share_one_weight(tmp_path):
    model = Language().eval()
    found = read_program(write(model, [WORDS], tmp_path / "model.pt2"))
    assert type(found.embed) is nn.Embedding
    assert type(found.scores) is nn.Linear
    assert found.scores.weight is found.embed.weight
    assert torch.equal(found(WORDS), model(WORDS))


class Scaled(nn.Linear):
    """A Linear that computes something else."""

    def __init__(self):
        super().__init__(4, 4)
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return super().forward(x) * self.scale


def test_a_layer_that_does_more_stays_a_call(tmp_path):
    model, x = nn.Sequential(Scaled(), nn.Linear(4, 2)).eval(), torch.randn(2, 4)
    found = read_program(write(model, [x], tmp_path / "model.pt2"))
    assert type(found.get_submodule("0")) is nn.Module
    assert type(found.get_submodule("1")) is nn.Linear
    assert torch.equal(found(x), model(x))


class TwoWays(nn.Module):
    """One kernel, called with two strides."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x):
        return self.conv(x).sum() + F.conv2d(x, self.conv.weight, self.conv.bias, stride=2)


def test_a_kernel_that_is_called_in_two_ways_stays_a_call(tmp_path):
    model, x = TwoWays().eval(), torch.randn(2, 3, 8, 8)
    model.conv.weight.requires_grad_(False)
    found = read_program(write(model, [x], tmp_path / "model.pt2"))
    assert type(found.conv) is nn.Module
    assert [p.requires_grad for p in found.parameters()] == [False, True]
    assert torch.equal(found(x), model(x))


def test_a_network_exported_in_train_mode_follows_both_modes(tmp_path):
    x = torch.randn(4, 3, 8, 8)
    model = settled(Everything(), x)
    found = read_program(write(model.train(), [x], tmp_path / "model.pt2"))
    assert not found.training
    assert torch.equal(found(x), model.eval()(x))
    for network in (model, found):
        torch.manual_seed(0)
        network.train()(x)
    assert torch.equal(found.eval()(x), model.eval()(x))
    assert found.norms.first.num_batches_tracked == model.norms.first.num_batches_tracked


def test_attention_in_train_mode_is_refused(tmp_path):
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    path = write(model, [torch.randn(2, 5, 8)], tmp_path / "model.pt2")
    with pytest.raises(ProgramError, match=r"'scaled_dot_product.* after model\.eval\(\)"):
        read_program(path)


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x, y, scale=2.0):
        return {"both": self.layer(x + y) * scale, "none": None, "one": x}


def test_several_inputs_and_outputs_come_in_order(tmp_path):
    model = Several().eval()
    x, y = torch.randn(2, 2, 4)
    found = read_program(write(model, [x, y], tmp_path / "model.pt2"))
    both, one = found(x, y)
    assert torch.equal(both, model(x, y)["both"])
    assert torch.equal(one, x)
    with pytest.raises(ValueError, match="1 inputs came, 2 were wanted"):
        found(x)


def test_memory_formats_are_kept(tmp_path):
    model = nn.Sequential(nn.Conv2d(8, 8, 3)).eval().to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 6, 6)
    found = read_program(write(model, [x], tmp_path / "model.pt2"))
    weight = found.get_submodule("0").weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found(x), model(x))


def test_a_recurrent_layer_takes_any_number_of_steps(tmp_path):
    model = settled(Recurrent(nn.LSTM), WORDS)
    found = read_program(write(model, [WORDS], tmp_path / "model.pt2"))
    longer = torch.cat([WORDS, WORDS], 1)
    assert torch.equal(found(longer), model(longer))


def test_a_recurrent_layer_takes_any_batch(tmp_path):
    """Though the exporter wrote down zeros of its own batch as the first state."""
    model = settled(Recurrent(nn.LSTM), WORDS)
    found = read_program(write(model, [WORDS], tmp_path / "model.pt2", dynamic=False))
    more = torch.cat([WORDS, WORDS, WORDS])
    assert torch.equal(found(more), model(more))


class Masking(nn.Module):
    """Writes into a part of a tensor, and uses the whole."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        y = self.layer(x).clone()
        y[:, :2].zero_()
        y[:, 2:3] = 1
        return y


def test_what_is_written_into_a_part_is_seen_in_the_whole(tmp_path):
    model, x = Masking().eval(), torch.randn(2, 4)
    found = read_program(write(model, [x], tmp_path / "model.pt2"))
    assert torch.equal(found(x), model(x))
    assert found(x)[:, :3].tolist() == [[0, 0, 1]] * 2
