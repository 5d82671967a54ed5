import copy
import json
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from compress.recurrent.formats import FORMATS, network_of
from compress.recurrent.layer import CELLS, GRU, LSTM, RNN, Recurrent, build
from compress.recurrent.modes import Modes
from compress.recurrent.projection import Projection
from tests.compress.recurrent.matrices import matrix_of, projection_of
from tests.strategies import SEEDS, normal

EXACT = {"rtol": 0, "atol": 1e-10}
KINDS = {"LSTM": (nn.LSTM, LSTM), "GRU": (nn.GRU, GRU), "RNN": (nn.RNN, RNN)}


@st.composite
def settings_of(draw, kind):
    """Arguments of a layer of 6 features."""
    arguments = {
        "input_size": 6,
        "hidden_size": 4,
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
    }
    if kind == "LSTM":
        arguments["proj_size"] = draw(st.integers(0, 3))
    if kind == "RNN":
        arguments["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    return arguments


def pair(kind, arguments, factorised=()):
    """torch's layer, and ours with the same weights; some are factorised, to the same matrices."""
    theirs, ours = KINDS[kind]
    dense = theirs(**arguments).double()
    state, weights = dense.state_dict(), {}
    for name in factorised:
        if name in state:
            out_features, in_features = state[name].shape
            modes = Modes.of(in_features, out_features)
            weights[name] = projection_of(network_of("kcp", modes, (1, 1)))
            state[name] = matrix_of(weights[name]).detach()
    dense.load_state_dict(state)
    layer = ours(**arguments, weights=weights).double()
    own = {name: value for name, value in state.items() if name not in weights}
    layer.load_state_dict(layer.state_dict() | own)
    return dense, layer


def first_state(dense, batch, seed):
    count = dense.num_layers * (1 + dense.bidirectional)
    h = normal(seed, count, *batch, dense.proj_size or dense.hidden_size)
    if not isinstance(dense, nn.LSTM):
        return h
    return h, normal(seed + 1, count, *batch, dense.hidden_size)


def assert_same(came, expected):
    """Outputs and states, of tensors and packed sequences."""
    for both in zip(came, expected, strict=True):
        one, other = map(unpacked, both)
        torch.testing.assert_close(one, other, **EXACT)


def unpacked(result):
    """A packed sequence as its padded outputs and its lengths, anything else as it is."""
    return pad_packed_sequence(result) if isinstance(result, PackedSequence) else result


# Dense weights take torch's kernel, factorised ones of the states the loop.
FACTORISED = [
    (),
    ("weight_ih_l0", "weight_ih_l1_reverse"),
    ("weight_hh_l0", "weight_hh_l0_reverse", "weight_hh_l1", "weight_ih_l2"),
    ("weight_hr_l0", "weight_hh_l1_reverse"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factorised", FACTORISED, ids=len)
def test_it_computes_what_the_layer_of_torch_computes(kind, factorised):
    @settings(deadline=None, max_examples=15)
    @given(data=st.data(), batch=st.sampled_from([(), (1,), (3,)]), given_state=st.booleans())
    def check(data, batch, given_state):
        arguments = data.draw(settings_of(kind))
        dense, layer = pair(kind, arguments, factorised)
        size = (*batch, 5, 6) if arguments["batch_first"] else (5, *batch, 6)
        hx = first_state(dense, batch, 3) if given_state else None
        x = normal(data.draw(SEEDS), *size)
        assert_same(layer(x, hx), dense(x, hx))

    check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factorised", FACTORISED, ids=len)
def test_packed_sequences_of_any_lengths_in_any_order(kind, factorised):
    @settings(deadline=None, max_examples=15)
    @given(
        data=st.data(),
        lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
        given_state=st.booleans(),
        is_sorted=st.booleans(),
    )
    def check(data, lengths, given_state, is_sorted):
        dense, layer = pair(kind, data.draw(settings_of(kind)), factorised)
        if is_sorted:
            lengths = sorted(lengths, reverse=True)
        x = normal(data.draw(SEEDS), max(lengths), len(lengths), 6)
        packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=is_sorted)
        hx = first_state(dense, (len(lengths),), 3) if given_state else None
        assert_same(layer(packed, hx), dense(packed, hx))

    check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factorised", FACTORISED[1:], ids=len)
def test_gradients_are_those_of_the_layer_of_torch(kind, factorised):
    arguments = {"input_size": 6, "hidden_size": 4, "num_layers": 2, "bidirectional": True}
    dense, layer = pair(kind, arguments, factorised)
    gradients = []
    for each in (dense, layer):
        x = normal(0, 5, 3, 6).requires_grad_()
        outputs, _ = each(x)
        outputs.square().sum().backward()
        gradients.append({"x": x.grad} | {name: p.grad for name, p in each.named_parameters()})
    theirs, ours = gradients
    assert theirs.keys() - ours.keys() == layer._modules.keys()
    for name in theirs.keys() & ours.keys():
        torch.testing.assert_close(ours[name], theirs[name], **EXACT)
    for name, module in layer.named_children():
        factors = [*module.parameters()]
        expected = torch.autograd.grad(matrix_of(module), factors, theirs[name])
        torch.testing.assert_close([factor.grad for factor in factors], [*expected], **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_without_factors_the_state_dict_is_that_of_torch(kind):
    theirs, ours = KINDS[kind]
    dense, layer = theirs(6, 4, 2, bidirectional=True), ours(6, 4, 2, bidirectional=True)
    sizes = [
        {name: value.shape for name, value in each.state_dict().items()} for each in (dense, layer)
    ]
    assert list(sizes[0].items()) == list(sizes[1].items())
    layer.load_state_dict(dense.state_dict())
    dense.load_state_dict(layer.state_dict())


@pytest.mark.parametrize("mode", CELLS)
def test_a_description_and_a_state_dict_are_the_layer(mode):
    weights = {
        "weight_hh_l1": projection_of(network_of("kcp", Modes.of(4, CELLS[mode].gates * 4), (2, 2)))
    }
    layer = Recurrent(mode, 6, 4, 2, batch_first=True, weights=weights).double()
    text = json.dumps(layer.description, sort_keys=True)
    rebuilt = build(json.loads(text), Projection).double()
    rebuilt.load_state_dict(layer.state_dict())
    x = normal(0, 3, 5, 6)
    assert_same(rebuilt(x), layer(x))


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"dense"}))
def test_every_format_for_inputs_and_states(name):
    weights = {}
    for side in ("ih", "hh"):
        modes = Modes.of(16, 64)
        ranks = FORMATS[name].uniform(modes, 2)
        weights[f"weight_{side}_l0"] = projection_of(network_of(name, modes, ranks))
    layer = LSTM(16, 16, weights=weights).double()
    dense = nn.LSTM(16, 16).double()
    matrices = {key: matrix_of(module) for key, module in weights.items()}
    dense.load_state_dict(
        {k: matrices.get(k, layer.state_dict().get(k)) for k in dense.state_dict()}
    )
    x = normal(0, 4, 2, 16)
    assert_same(layer(x), dense(x))


def test_dropout_between_layers_in_training_alone():
    _, layer = pair("GRU", {"input_size": 6, "hidden_size": 4, "num_layers": 2, "dropout": 0.5})
    x = normal(0, 5, 2, 6)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
    _, kept = layer(x)
    layer.train()
    layer.dropout = 1.0
    lost, states = layer(x)
    silent, _ = layer(normal(1, 5, 2, 6))
    torch.testing.assert_close(lost, silent, **EXACT)
    torch.testing.assert_close(states[0], kept[0], **EXACT)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_has_factors_of_its_own(copied):
    _, layer = pair("LSTM", {"input_size": 6, "hidden_size": 4}, ("weight_hh_l0",))
    twin = copied(layer)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    x = normal(0, 5, 2, 6)
    assert layer(x)[0].abs().max() == 0
    assert twin(x)[0].abs().max() > 0


def test_it_is_made_where_and_as_it_is_asked_to_be():
    weights = {"weight_hh_l0": projection_of(network_of("svd", Modes((4,), (12,)), (2,)))}
    layer = GRU(6, 4, weights=weights, device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", torch.float64)}


def test_inputs_of_another_size_are_refused():
    layer = LSTM(6, 4)
    for size in ((5, 2, 7), (5,), (1, 5, 2, 6)):
        with pytest.raises(ValueError, match="6 features were wanted"):
            layer(torch.zeros(size))


def test_states_of_another_size_are_refused():
    layer = LSTM(6, 4, proj_size=3)
    with pytest.raises(ValueError, match=r"\[\(1, 2, 3\), \(1, 2, 4\)\] were wanted"):
        layer(torch.zeros(5, 2, 6), (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))


def test_modules_of_another_size_or_name_are_refused():
    svd = projection_of(network_of("svd", Modes((6,), (8,)), (2,)))
    with pytest.raises(ValueError, match=r"\(8, 6\) came for weight_ih_l0; \(16, 6\)"):
        LSTM(6, 4, weights={"weight_ih_l0": svd})
    with pytest.raises(ValueError, match="no weights"):
        LSTM(6, 4, weights={"weight_ih_l1": svd})
