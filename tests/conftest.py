"""Fixtures that every folder of tests may ask for."""

import random
import sys

import pytest

pytest_plugins = ["tests.databases"]


@pytest.fixture(autouse=True)
def seeded():
    """The global generators start alike; those of libraries that no test imported stay unloaded."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
