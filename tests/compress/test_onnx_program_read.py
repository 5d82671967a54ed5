"""What torch's two exporters write, read back; layers, their names, and what is shared."""

import warnings

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

from compress.calibration import trace
from compress.errors import ProgramError
from compress.onnx_program.read import read_onnx
from compress.plan import Choice, Plan
from compress.program.child import try_in_child
from compress.program.read import examine, read_network
from compress.surgery import factorize_
from tests.compress.onnx_files import FLOAT, INT64, model_of, node, run, saved
from tests.compress.programs import write

EXACT = {"rtol": 1e-5, "atol": 1e-5}
WORDS = torch.randint(20, (2, 5), generator=torch.Generator().manual_seed(0))
LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.RNNBase, nn.Embedding)


class Images(nn.Module):
    """(N, 3, 16, 16) -> (N, 5): a block with a shortcut, a scaling up, a token, a product."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Hardswish()),
            nn.ConvTranspose2d(8, 8, 2, 2),
        )
        self.norm = nn.LayerNorm(8)
        self.mix = nn.Linear(8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.classify = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = self.blocks(x) + F.interpolate(x, scale_factor=2, mode="bilinear")
        x = self.norm(x.flatten(2).transpose(1, 2))
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        scores = (x @ x.transpose(1, 2) / 8).softmax(-1)
        return self.classify((scores @ self.mix(x))[:, 0])


class Recurrent(nn.Module):
    def __init__(self, kind, **arguments):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.recurrent = kind(8, 6, batch_first=True, **arguments)
        self.classify = nn.Linear(12 if arguments.get("bidirectional") else 6, 3)

    def forward(self, x):
        outputs, _ = self.recurrent(self.embed(x))
        return self.classify(outputs[:, -1])


class Last(nn.Module):
    """(N, 5, 8) -> (N, 6): the last hidden state, from a first one that is no zero."""

    def __init__(self, kind):
        super().__init__()
        self.recurrent = kind(8, 6)
        self.start = nn.Parameter(torch.randn(1, 1, 6))

    def forward(self, x):
        start = self.start.expand(-1, x.shape[0], -1)
        state = (start, start) if isinstance(self.recurrent, nn.LSTM) else start
        _, end = self.recurrent(x.transpose(0, 1), state)
        return (end[0] if isinstance(end, tuple) else end)[-1]


STEPS = torch.randn(2, 5, 8)
NETWORKS = {
    "images": (Images, torch.randn(2, 3, 16, 16)),
    "lstm": (lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), WORDS),
    "plain lstm": (lambda: Recurrent(nn.LSTM, bias=False), WORDS),
    "gru": (lambda: Recurrent(nn.GRU, bidirectional=True), WORDS),
    "rnn": (lambda: Recurrent(nn.RNN, nonlinearity="relu"), WORDS),
    "last lstm": (lambda: Last(nn.LSTM), STEPS),
    "last gru": (lambda: Last(nn.GRU), STEPS),
}
EXPORTS = [
    *((name, False, 17) for name in NETWORKS),
    ("images", False, 13),
    ("images", True, 18),
    ("gru", True, 20),
]


def exported(model, x, path, *, dynamo=False, opset=17, dynamic=True):
    """The path of a file that torch's exporter wrote."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},) if dynamic else None
            options = {"dynamo": True, "dynamic_shapes": shapes, "external_data": False}
        else:
            options = {"dynamo": False, "dynamic_axes": {"x": {0: "batch"}} if dynamic else None}
        torch.onnx.export(
            model, (x,), path, opset_version=opset, input_names=["x"], verbose=False, **options
        )
    return path


@pytest.fixture(scope="module", params=EXPORTS, ids=str)
def pair(request, tmp_path_factory):
    """A network, what came back of it, and an input."""
    name, dynamo, opset = request.param
    make, x = NETWORKS[name]
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for _ in range(2):
            model.train()(x)
    model.eval()
    path = tmp_path_factory.mktemp("exports") / "model.onnx"
    return model, read_onnx(exported(model, x, path, dynamo=dynamo, opset=opset)), x


def test_the_same_comes_out_for_any_batch(pair):
    model, found, x = pair
    with torch.no_grad():
        for batch in (x, x[:1], torch.cat([x, x.flip(0), x[:1]])):
            torch.testing.assert_close(found(batch), model(batch), **EXACT)
        assert model(x).std() > 0


def test_layers_stand_under_their_names(pair):
    model, found, _ = pair
    for name, layer in model.named_modules():
        if isinstance(layer, LAYERS):
            lifted = found.get_submodule(name)
            assert type(lifted) is type(layer)
            if not isinstance(layer, nn.RNNBase):
                assert torch.equal(lifted.weight[0] == 0, layer.weight[0] == 0)
                assert lifted.weight.shape == layer.weight.shape


def test_layers_are_parameters_that_can_be_trained(pair):
    _, found, x = pair
    found(x).square().sum().backward()
    layers = [m for m in found.modules() if isinstance(m, LAYERS)]
    assert layers
    assert all(p.grad is not None for layer in layers for p in layer.parameters())
    found.zero_grad()


def test_stacked_layers_have_names_of_their_own(tmp_path):
    model = Recurrent(nn.GRU, num_layers=3).eval()
    found = read_onnx(exported(model, WORDS, tmp_path / "model.onnx"))
    names = [name for name, m in found.named_modules() if isinstance(m, nn.GRU)]
    assert names == ["recurrent", "recurrent_2", "recurrent_3"]
    assert not [name for name, _ in found.named_buffers()]


def test_layers_are_factorised_as_in_any_network(tmp_path):
    model, x = Images().eval(), NETWORKS["images"][1]
    found = read_onnx(exported(model, x, tmp_path / "model.onnx"))
    wanted, ours = trace(model, x), trace(found, x)
    assert {"stem.0", "blocks.1", "mix", "classify"} <= ours.keys()
    assert all(ours[name] == found_in for name, found_in in wanted.items() if name in ours)
    before = sum(p.numel() for p in found.parameters())
    factorize_(found, Plan({"mix": Choice("svd", (2,)), "stem.0": Choice("tucker2", (4, 2))}))
    assert sum(p.numel() for p in found.parameters()) < before
    assert found(x).shape == (2, 5)


def test_a_batch_that_was_fixed_is_free(tmp_path):
    model, x = Recurrent(nn.GRU, bidirectional=True).eval(), WORDS
    path = exported(model, x[:1], tmp_path / "model.onnx", dynamic=False)
    found = read_onnx(path)
    with torch.no_grad():
        torch.testing.assert_close(found(x), model(x), **EXACT)


@pytest.mark.parametrize(
    ("shape", "first", "then"),
    [
        ([4, 6], [8, 3], [4, -1]),
        ([4, 6], [4, 2, 3], [4, 6]),
        ([4, 2, 3], [-1, 3], [4, 2, -1]),
    ],
    ids=str,
)
def test_shapes_follow_a_batch_that_was_fixed(shape, first, then, tmp_path):
    nodes = [node("Reshape", "x s", "r"), node("Reshape", "r t", "y")]
    shapes = {"s": np.array(first), "t": np.array(then)}
    path = saved(model_of(nodes, {"x": shape}, shapes), tmp_path / "model.onnx")
    x = torch.randn(5, *shape[1:])
    wanted = run(path, x[:4])
    found = read_onnx(path)(x)
    assert found.shape == (5, *wanted.shape[1:])
    torch.testing.assert_close(found[:4], wanted)


def test_a_fixed_batch_on_the_second_axis_is_free_there(tmp_path):
    """As in recurrent networks: (T, N, 1, H) to (T, N, H)."""
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node("Unsqueeze", "t two", "u"),
        node("Reshape", "u s", "r"),
        node("Transpose", "r", perm=[1, 0, 2]),
    ]
    weights = {"two": np.array([2]), "s": np.array([5, 1, 3])}
    path = saved(model_of(nodes, {"x": [1, 5, 3]}, weights), tmp_path / "model.onnx")
    x = torch.randn(4, 5, 3)
    assert torch.equal(read_onnx(path)(x), x)


def test_sizes_are_computed_without_tensors(tmp_path):
    """(N, T, 6) -> (N, 3 T, 2), T in the file a free axis, and a mask of sizes beside."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "n"),
        node("Gather", "shape one", "t"),
        node("Mul", "t three", "length"),
        node("Div", "length three", "again"),
        node("Mul", "again three", "long"),
        node("Unsqueeze", "n at", "first"),
        node("Unsqueeze", "long at", "second"),
        node("Concat", "first second minus", "wanted", axis=0),
        node("Reshape", "x wanted", "r"),
        node("Equal", "wanted minus", "free"),
        node("Where", "free unit wanted", "sizes"),
        node("Slice", "sizes at unit", "rows"),
        node("Concat", "rows unit unit", "expanded", axis=0),
        node("ConstantOfShape", "expanded", "ones", value=tensor_of(1.0)),
        node("Add", "r ones"),
    ]
    weights = {
        "zero": np.int64(0), "one": np.int64(1), "three": np.int64(3), "at": np.array([0]),
        "minus": np.array([-1]), "unit": np.array([1]),
    }  # fmt: skip
    path = saved(model_of(nodes, {"x": ["N", "T", 6]}, weights), tmp_path / "model.onnx")
    found = read_onnx(path)
    for batch, length in ((1, 4), (3, 7)):
        x = torch.randn(batch, length, 6)
        torch.testing.assert_close(found(x), x.reshape(batch, -1, 2) + 1)
        torch.testing.assert_close(run(path, x), found(x))
    assert not found.state_dict()


def tensor_of(value):
    return numpy_helper.from_array(np.array([value], np.float32))


def test_constants_that_a_node_makes_are_computed_once(tmp_path):
    """A mask by Range, ScatterND and Trilu, as exporters of traces make them."""
    nodes = [
        node("Constant", "", "three", value_int=3),
        node("Constant", "", "values", value_floats=[5.0, 7.0]),
        node("Range", "zero three one", "row"),
        node("Cast", "row", "floats", to=FLOAT),
        node("ScatterND", "floats places values", "mask"),
        node("Size", "mask", "count"),
        node("Cast", "count", "number", to=FLOAT),
        node("Mul", "mask number", "scaled"),
        node("Add", "x scaled"),
    ]
    nodes[0].input.pop(), nodes[1].input.pop()
    weights = {"zero": np.int64(0), "one": np.int64(1), "places": np.array([[0], [2]])}
    path = saved(model_of(nodes, {"x": ["N", 3]}, weights), tmp_path / "model.onnx")
    found, x = read_onnx(path), torch.randn(2, 3)
    torch.testing.assert_close(found(x), x + torch.tensor([15.0, 3.0, 21.0]))
    torch.testing.assert_close(run(path, x), found(x))
    assert [name for name, _ in found.named_buffers()] == ["constant_0"]
    assert not found.state_dict()


def products(names, weights, *, scopes=()):
    """x times one weight after the other, the nodes named."""
    nodes, last = [], "x"
    for i, (name, weight) in enumerate(names):
        nodes.append(node("MatMul", f"{last} {weight}", f"h{i}"))
        nodes[-1].name, last = name, f"h{i}"
    nodes.append(node("Identity", last))
    for call, scope in zip(nodes, scopes, strict=False):
        call.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scope)
    return model_of(nodes, {"x": ["N", 4]}, weights)


def names_of(model, tmp_path):
    found = read_onnx(saved(model, tmp_path / "model.onnx"))
    return [name for name, module in found.named_modules() if isinstance(module, nn.Linear)]


def test_layers_without_a_name_are_named_by_their_nodes(tmp_path):
    weights = {f"onnx::MatMul_{i}": np.eye(4, dtype=np.float32) + i for i in range(5)}
    names = ["/a/a.0/conv/MatMul", "/b/b.1/b.1.2/MatMul", "/a/MatMul", "", "__class__"]
    model = products(zip(names, weights, strict=True), weights)
    assert names_of(model, tmp_path) == ["a.0.conv", "a.linear", "b.1.2", "linear", "linear_2"]


def test_scopes_in_the_metadata_name_them_too(tmp_path):
    weights = {f"val_{i}": np.eye(4, dtype=np.float32) + i for i in range(2)}
    scopes = ["['', 'head', 'head.1', 'linear']", "__import__('os')"]
    model = products([("n0", "val_0"), ("n1", "val_1")], weights, scopes=scopes)
    assert names_of(model, tmp_path) == ["head.1", "linear"]


def test_matrices_that_are_one_stay_one(tmp_path):
    weights = {"w": np.eye(4, dtype=np.float32)}
    model = products([("/first/MatMul", "w"), ("/second/MatMul", "w")], weights)
    found = read_onnx(saved(model, tmp_path / "model.onnx"))
    assert found.first.weight is found.second.weight
    assert trace(found, torch.randn(2, 4))["first"].calls == 2


def test_one_layer_that_is_called_twice_is_one(tmp_path):
    weights = {"layer.weight": np.eye(4, dtype=np.float32)}
    calls = [("/layer/MatMul", "layer.weight"), ("/layer_1/MatMul", "layer.weight")]
    found = read_onnx(saved(products(calls, weights), tmp_path / "model.onnx"))
    assert found.state_dict().keys() == {"layer.weight"}
    assert trace(found, torch.randn(2, 4))["layer"].calls == 2


def test_vectors_that_are_equal_stay_two(tmp_path):
    """Exporters of traces store the ones of all fresh norms once."""
    nodes = [
        node("Identity", "a.weight", "b.weight"),
        node("LayerNormalization", "x a.weight a.bias", "h"),
        node("LayerNormalization", "h b.weight a.bias"),
    ]
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    model = model_of(nodes, {"x": ["N", 4]}, {"a.weight": ones, "a.bias": zeros})
    found = read_onnx(saved(model, tmp_path / "model.onnx"))
    assert isinstance(found.a, nn.LayerNorm)
    assert isinstance(found.b, nn.LayerNorm)
    assert found.a.weight is not found.b.weight


def test_what_no_layer_owns_keeps_the_authors_name(tmp_path):
    nodes = [
        node("Add", "x token", "a"),
        node("Mul", "a val_1", "m"),
        node("Div", "m blocks.0.count"),
    ]
    weights = {
        "token": np.ones(4, np.float32),
        "val_1": np.ones(4, np.float32) * 2,
        "blocks.0.count": np.float32(3) * np.ones((1, 4), np.float32),
    }
    found = read_onnx(saved(model_of(nodes, {"x": ["N", 4]}, weights), tmp_path / "model.onnx"))
    assert found.state_dict().keys() == {"token", "blocks.0.count"}
    assert isinstance(found.token, nn.Parameter)
    assert [name for name, _ in found.named_buffers()] == ["constant_1"]


def test_a_mask_may_be_infinite_and_is_no_parameter(tmp_path):
    mask = np.where(np.eye(4) > 0, 0, -np.inf).astype(np.float32)[:1]
    model = model_of(
        [node("Add", "x mask", "a"), node("Softmax", "a")], {"x": ["N", 4]}, {"mask": mask}
    )
    found = read_onnx(saved(model, tmp_path / "model.onnx"))
    assert torch.equal(found(torch.zeros(2, 4)), torch.eye(4)[[0, 0]])
    assert not [*found.parameters()]


def test_a_bias_that_is_read_once_more_is_added_by_itself(tmp_path):
    nodes = [node("MatMul", "x w", "p"), node("Add", "p b", "q"), node("Mul", "p q")]
    weights = {"w": np.eye(4, dtype=np.float32) * 3, "b": np.ones(4, np.float32)}
    path = saved(model_of(nodes, {"x": ["N", 4]}, weights), tmp_path / "model.onnx")
    x = torch.randn(2, 4)
    torch.testing.assert_close(read_onnx(path)(x), run(path, x))


RECURRENT = {
    "layout=1": {"layout": 1},
    "input_forget=1": {"input_forget": 1},
    "a clip of the gates": {"clip": 1.0},
    "direction='reverse'": {"direction": "reverse"},
    "activations=": {"activations": ["Relu", "Tanh", "Tanh"]},
}


@pytest.mark.parametrize("message", RECURRENT)
def test_recurrences_that_torch_has_not_are_refused(message, tmp_path):
    weights = {"w": np.ones((1, 24, 4), np.float32), "r": np.ones((1, 24, 6), np.float32)}
    call = node("LSTM", "x w r", hidden_size=6, **RECURRENT[message])
    path = saved(model_of([call], {"x": [5, "N", 4]}, weights), tmp_path / "model.onnx")
    with pytest.raises(ProgramError, match=message):
        read_onnx(path)


def test_a_gru_that_resets_before_the_product_is_refused(tmp_path):
    weights = {"w": np.ones((1, 18, 4), np.float32), "r": np.ones((1, 18, 6), np.float32)}
    path = saved(
        model_of([node("GRU", "x w r", hidden_size=6)], {"x": [5, "N", 4]}, weights),
        tmp_path / "model.onnx",
    )
    with pytest.raises(ProgramError, match="linear_before_reset=0"):
        read_onnx(path)


def test_a_path_that_depends_on_the_batch_is_refused(tmp_path):
    nodes = [
        node("Shape", "x", "s"),
        node("Equal", "s two", "e"),
        node("Cast", "e", "f", to=FLOAT),
        node("Add", "x f"),
    ]
    path = saved(
        model_of(nodes, {"x": ["N", 2]}, {"two": np.array([2, 2])}), tmp_path / "model.onnx"
    )
    with pytest.raises(ProgramError, match="depends on the batch"):
        read_onnx(path)


def test_one_call_reads_files_of_both_kinds(tmp_path):
    model, x = nn.Sequential(nn.Linear(4, 3)).eval(), torch.randn(2, 4)
    archive = write(model, [x], tmp_path / "model.pt2")
    other = exported(model, x, tmp_path / "model.onnx")
    for path in (archive, other):
        found = read_network(path)
        assert found.state_dict().keys() == model.state_dict().keys()
        torch.testing.assert_close(found(x), model(x), **EXACT)
    assert examine(archive) == examine(other)
    assert try_in_child(other) == examine(other)


def test_the_batch_is_told_from_the_rest(tmp_path):
    """A network whose inputs are not computed alone is found out when it is run."""
    path = saved(
        model_of([node("ReduceMean", "x", "m", axes=[0]), node("Add", "x m")], {"x": ["N", 4]}),
        tmp_path / "model.onnx",
    )
    with pytest.raises(ProgramError, match="depends on the rest of its batch"):
        examine(path)


def test_inputs_of_whole_numbers_and_several(tmp_path):
    nodes = [node("Cast", "i", "f", to=FLOAT), node("Add", "x f")]
    path = saved(model_of(nodes, {"i": (INT64, ["N", 4]), "x": ["N", 4]}), tmp_path / "model.onnx")
    i, x = torch.arange(8).reshape(2, 4), torch.randn(2, 4)
    torch.testing.assert_close(read_onnx(path)(i, x), i + x)
