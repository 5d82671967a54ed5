"""Uploading, listing and erasing networks."""

import argparse
import hashlib
import io
import os
import time

import numpy as np
import pytest
import torch

from tests.compress import onnx_files
from tests.compress.onnx_files import model_of, node
from tests.compress.programs import changed, graph_of, write
from tests.service.files import weights


def upload(client, content, **query):
    query = {"architecture": "digits_cnn"} | query
    return client.post("/v1/models", params=query, content=content)


def test_an_upload_is_created_and_can_be_read(client):
    content = weights()
    answer = upload(client, content, name="tiny")
    assert answer.status_code == 201
    model = answer.json()
    assert model["architecture"] == "digits_cnn"
    assert model["name"] == "tiny"
    assert model["sha256"] == hashlib.sha256(content).hexdigest()
    assert model["size_bytes"] == len(content)
    assert model["parameters"] == 36  # of the convolution; statistics and counters are none
    assert client.get(answer.headers["Location"]).json() == model


def test_the_file_is_kept_under_its_digest(client, settings):
    content = weights()
    digest = upload(client, content).json()["sha256"]
    assert (settings.blobs / digest[:2] / digest).read_bytes() == content
    assert list((settings.blobs / "tmp").iterdir()) == []


def test_the_same_upload_again_is_the_model_that_is_there(client, traces):
    first = upload(client, weights(), name="one")
    before = traces()
    again = upload(client, weights(), name="two")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert traces() == before


def test_the_same_weights_of_another_architecture_are_another_model(client):
    first = upload(client, weights())
    other = upload(client, weights(), architecture="song_mnist")
    assert other.status_code == 201
    assert other.json()["id"] != first.json()["id"]
    assert other.json()["sha256"] == first.json()["sha256"]


def test_every_kind_of_float_counts_as_parameters(client):
    file = weights(**{f"w{dtype}": np.ones(5, dtype) for dtype in ("f2", "f4", "f8")})
    assert upload(client, file).json()["parameters"] == 15


def test_an_unknown_architecture_lists_what_is_near(client, traces):
    answer = upload(client, weights(), architecture="resnet_18")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "unsupported-architecture")
    assert "resnet18" in problem["detail"]
    assert problem["errors"][0]["parameter"] == "architecture"
    assert traces() == set()


def test_an_unknown_parameter_of_the_query_is_refused(client, traces):
    answer = upload(client, weights(), nmae="tiny")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == "nmae"
    assert traces() == set()


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def test_a_state_dict_of_torch_is_stored_unopened(client):
    answer = upload(client, saved({"conv1.weight": torch.ones(4, 1, 3, 3)}))
    assert answer.status_code == 201, answer.text
    assert answer.json()["parameters"] is None


def test_a_checkpoint_that_names_what_lies_outside_torch_is_refused(client, traces):
    problem = upload(client, saved({"args": argparse.Namespace(lr=0.1)})).json()
    assert problem["code"] == "unsafe-file"
    assert "argparse.Namespace" in problem["detail"]
    assert traces() == set()


def test_an_architecture_of_timm_is_known(client):
    assert upload(client, weights(), architecture="timm/resnet18").status_code == 201
    problem = upload(client, weights(), architecture="timm/resnet81").json()
    assert "timm/resnet18" in problem["detail"]


@pytest.mark.parametrize("name", ["hf-hub:a/b", "timm/hf-hub:a", "timm/local-dir:/x", "mine:make"])
def test_a_name_that_leads_elsewhere_is_refused(client, traces, name):
    problem = upload(client, weights(), architecture=name).json()
    assert problem["code"] == "unsupported-architecture"
    assert "your machine alone" in problem["detail"]
    assert traces() == set()


def test_a_deleted_model_is_gone_with_its_file(client, settings):
    model = upload(client, weights()).json()
    blob = settings.blobs / model["sha256"][:2] / model["sha256"]
    an_hour_ago = time.time() - 3600  # a file as young as this one may belong to an upload
    os.utime(blob, (an_hour_ago, an_hour_ago))
    answer = client.delete(f"/v1/models/{model['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get(f"/v1/models/{model['id']}").status_code == 404
    assert not blob.exists()


def test_a_file_that_another_model_needs_stays(client, settings):
    model = upload(client, weights()).json()
    upload(client, weights(), architecture="song_mnist")
    blob = settings.blobs / model["sha256"][:2] / model["sha256"]
    os.utime(blob, (0, 0))
    client.delete(f"/v1/models/{model['id']}")
    assert blob.exists()


def test_a_model_that_a_job_needs_stays(client, model_id, job_id):
    answer = client.delete(f"/v1/models/{model_id}")
    assert (answer.status_code, answer.json()["code"]) == (409, "in-use")
    assert job_id in answer.json()["detail"]
    assert client.get(f"/v1/models/{model_id}").status_code == 200


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 4)).eval()
    return write(network, (torch.ones(2, 1, 3, 3),), tmp_path_factory.mktemp("p") / "mine.pt2")


def test_a_program_brings_its_architecture(client, program):
    answer = client.post("/v1/models", content=program.read_bytes())
    assert answer.status_code == 201, answer.text
    assert answer.json()["architecture"] == "program"
    assert answer.json()["parameters"] == 40


def test_a_program_that_calls_what_is_not_read_is_refused(client, traces, program, tmp_path):
    def edit(document):
        graph_of(document)["nodes"][0]["target"] = "torch.ops.aten.from_file.default"

    crafted = changed(program, tmp_path / "crafted.pt2", edit=edit)
    problem = client.post("/v1/models", content=crafted.read_bytes()).json()
    assert problem["code"] == "unsupported-program"
    assert "aten.from_file" in problem["detail"]
    assert traces() == set()


def test_weights_without_an_architecture_are_no_program(client, traces):
    problem = client.post("/v1/models", content=weights()).json()
    assert problem["code"] == "unsupported-architecture"
    assert problem["errors"][0]["parameter"] == "architecture"
    assert traces() == set()


def test_a_program_with_an_architecture_is_told_to_come_without(client, traces, program):
    problem = upload(client, program.read_bytes()).json()
    assert problem["code"] == "unsafe-file"
    assert "send it without one" in problem["detail"]
    assert traces() == set()


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    nodes = [node("Flatten", "x", "flat"), node("Gemm", "flat w b", "y", transB=1)]
    weights = {"w": np.ones((4, 9), np.float32), "b": np.ones(4, np.float32)}
    model = model_of(nodes, {"x": ["batch", 1, 3, 3]}, weights)
    return onnx_files.saved(model, tmp_path_factory.mktemp("o") / "mine.onnx")


def test_an_onnx_file_brings_its_architecture(client, onnx_file):
    answer = client.post("/v1/models", content=onnx_file.read_bytes())
    assert answer.status_code == 201, answer.text
    assert (answer.json()["architecture"], answer.json()["parameters"]) == ("program", None)


def test_a_truncated_onnx_file_is_refused(client, traces, onnx_file):
    problem = client.post("/v1/models", content=onnx_file.read_bytes()[:-9]).json()
    assert problem["code"] == "unsupported-program"
    assert "truncated" in problem["detail"]
    assert traces() == set()
