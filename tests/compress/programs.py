"""Archives of torch.export for the tests, and changes to them."""

import json
import warnings
import zipfile

import torch

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


def write(model, inputs, path, *, dynamic=True):
    """Export a model as it is, for any batch; the path."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    shapes = tuple({0: batch} for _ in inputs) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, tuple(inputs), dynamic_shapes=shapes)
        torch.export.save(program, path)
    return path


def members(path):
    """Name, without the folder of all, -> content."""
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def pack(contents, path):
    """An archive of these members; the path."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"model/{name}", content)
    return path


def changed(source, path, *, member=MODEL, **contents):
    """The archive at `source` with a JSON member edited by a function, others replaced."""
    edit = contents.pop("edit", None)
    found = members(source)
    if edit is not None:
        document = json.loads(found[member])
        edit(document)
        found[member] = json.dumps(document)
    return pack(found | contents.pop("replace", {}), path)


def graph_of(document):
    """The graph of a model.json."""
    return document["graph_module"]["graph"]
