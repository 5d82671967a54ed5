import timm
from torchvision import models

from compress.catalog import (
    ARCHITECTURES,
    DEFAULT_METHODS,
    EXAMPLES,
    METHODS,
    TIMM,
    TORCHVISION,
)
from compress.load import build_sequential
from compress.methods.registry import METHODS as REGISTRY


def test_the_architectures_are_the_examples_and_what_torchvision_and_timm_list():
    assert set(models.list_models(module=models)) == TORCHVISION
    assert set(timm.list_models()) == TIMM
    assert {f"timm/{name}" for name in TIMM} | TORCHVISION | set(EXAMPLES) == ARCHITECTURES


def test_no_name_leads_to_the_network_or_to_the_disk():
    assert all(name.removeprefix("timm/").isidentifier() for name in ARCHITECTURES)


def test_every_example_is_built_with_the_names_of_its_rows():
    for rows in EXAMPLES.values():
        assert [name for name, _ in build_sequential(rows).named_children()] == [
            r.name for r in rows
        ]


def test_the_methods_are_those_of_the_registry():
    assert tuple(REGISTRY) == METHODS


def test_what_is_tried_by_default_is_the_head_of_all_methods():
    assert METHODS[: len(DEFAULT_METHODS)] == DEFAULT_METHODS
