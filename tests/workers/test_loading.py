"""What the service has checked at its door, as a job reads it."""

import json

import pytest
import torch

from compress.architectures import build
from compress.catalog import PROGRAM
from compress.load import build_dense
from search.data.declaration import Declaration
from service.dataset_intake import describe
from service.intake import count_parameters, count_program_parameters
from service.store import datasets, models
from service.store.session import reading
from tests.archives import folders, shard, tar_of, zip_of
from tests.compress.onnx_files import model_of, node, run, saved
from tests.compress.programs import write
from tests.workers.tiny import House, furnish, order
from workers.failures import JobError
from workers.loading import load, read_rows

TRANSFORMS = [{"channels": 1}, {"resize": 36}, {"center_crop": 32}]


@pytest.fixture
def house(sessions, tmp_path) -> House:
    return furnish(sessions, tmp_path)


def add_model(house, folder, state, architecture="digits_cnn"):
    torch.save(state, folder / "model.pth")
    parameters = count_parameters(folder / "model.pth")
    sha256, size_bytes = house.blobs.put_file(folder / "model.pth")
    with house.sessions.begin() as session:
        return models.add(
            session,
            name="mine.pth",
            architecture=architecture,
            sha256=sha256,
            size_bytes=size_bytes,
            parameters=parameters,
        ).id


def add_program(house, path):
    parameters = count_program_parameters(path)
    sha256, size_bytes = house.blobs.put_file(path)
    with house.sessions.begin() as session:
        return models.add(
            session,
            name="mine.pt2",
            architecture=PROGRAM,
            sha256=sha256,
            size_bytes=size_bytes,
            parameters=parameters,
        ).id


def add_dataset(house, folder, content, **declared):
    (folder / "data").write_bytes(content)
    declaration = Declaration.parsed(**{"inputs": "images", "mean": None, "std": None} | declared)
    description = describe(folder / "data", 1 << 20, declaration)
    sha256, size_bytes = house.blobs.put_file(folder / "data")
    with house.sessions.begin() as session:
        return datasets.add(
            session,
            name="pictures.zip",
            builtin=None,
            sha256=sha256,
            size_bytes=size_bytes,
            description=description,
        ).id


def loaded(house, **changes):
    job_id = house.submit(order(), **changes)
    with reading(house.sessions) as session:
        return load(read_rows(session, job_id), house.blobs, house.settings.data_root)


@pytest.mark.parametrize("content", [zip_of(folders(20)), tar_of(shard(20))], ids=["zip", "tar"])
def test_pictures_come_as_their_description_says(house, tmp_path, content):
    transforms = json.dumps(TRANSFORMS)
    dataset_id = add_dataset(house, tmp_path, content, transforms=transforms, mean="0.5", std="0.2")
    found = loaded(house, dataset_id=dataset_id)
    given = found.arrays.batch(torch.arange(20))
    assert given.shape == (20, 1, 32, 32)
    assert -2.5 <= given.min() < 0 < given.max() <= 2.5
    assert found.arrays.labels is not None
    assert found.model(given).shape == (20, 10)


def test_a_state_dict_of_torch_becomes_the_network(house, tmp_path):
    network = build("digits_cnn")
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    found = loaded(house, model_id=add_model(house, tmp_path, {"state_dict": state}))
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(found.model(x), network(x))


def test_what_does_not_fit_is_named_in_the_reason(house, tmp_path):
    state = build("digits_cnn").state_dict() | {"classify.weight": torch.ones(3, 256)}
    with pytest.raises(JobError) as caught:
        loaded(house, model_id=add_model(house, tmp_path, state))
    assert caught.value.reason["code"] == "bad_model"
    assert "classify.weight has shape (3, 256)" in caught.value.reason["detail"]
    assert "mine.pth" in caught.value.reason["detail"]


def test_a_program_becomes_the_network(house, tmp_path):
    network, x = build("digits_cnn"), torch.randn(2, 1, 32, 32)
    path = write(network, (x,), tmp_path / "model.pt2")
    found = loaded(house, model_id=add_program(house, path))
    assert torch.equal(found.model(x), network(x))
    built = build_dense(json.loads(json.dumps(found.architecture)))
    built.load_state_dict(found.model.state_dict())
    assert torch.equal(built(x), network(x))


def test_an_onnx_file_becomes_the_network(house, tmp_path):
    nodes = [node("Flatten", "x", "flat"), node("Gemm", "flat classify.weight b", "y", transB=1)]
    weights = {"classify.weight": torch.randn(4, 9).numpy(), "b": torch.randn(4).numpy()}
    path = saved(model_of(nodes, {"x": ["batch", 1, 3, 3]}, weights), tmp_path / "mine.onnx")
    x = torch.randn(2, 1, 3, 3)
    found = loaded(house, model_id=add_program(house, path))
    torch.testing.assert_close(found.model(x), run(path, x))
    assert type(found.model.classify) is torch.nn.Linear


class OneForAll(torch.nn.Module):
    def forward(self, x):
        return x - x.mean(0)


def test_a_program_is_tried_before_it_is_read(house, tmp_path):
    path = write(OneForAll(), (torch.randn(2, 3),), tmp_path / "model.pt2")
    with pytest.raises(JobError, match="depends on the rest of its batch") as caught:
        loaded(house, model_id=add_program(house, path))
    assert caught.value.reason["code"] == "bad_model"
