from torchvision import models

from compress.catalog import ARCHITECTURES, DEFAULT_METHODS, EXAMPLES, METHODS
from compress.load import build_sequential
from compress.methods.registry import METHODS as REGISTRY


def test_the_architectures_are_the_examples_and_what_torchvision_classifies_with():
    assert set(models.list_models(module=models)) | set(EXAMPLES) == ARCHITECTURES


def test_every_example_is_built_with_the_names_of_its_rows():
    for rows in EXAMPLES.values():
        assert [name for name, _ in build_sequential(rows).named_children()] == [
            r.name for r in rows
        ]


def test_the_methods_are_those_of_the_registry():
    assert tuple(REGISTRY) == METHODS


def test_what_is_tried_by_default_is_the_head_of_all_methods():
    assert METHODS[: len(DEFAULT_METHODS)] == DEFAULT_METHODS
