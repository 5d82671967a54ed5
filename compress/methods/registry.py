"""The methods by name."""

from types import MappingProxyType
from typing import Final

from compress.errors import PlanError
from compress.methods.block_term import BLOCK_TERM
from compress.methods.cp3 import CP3
from compress.methods.cp4 import CP4
from compress.methods.hierarchical_tucker import HIERARCHICAL_TUCKER
from compress.methods.kronecker import KRONECKER
from compress.methods.method import Method
from compress.methods.semi_tensor import SEMI_TENSOR
from compress.methods.spatial_svd import SPATIAL_SVD
from compress.methods.svd import SVD
from compress.methods.tensor_train import TENSOR_TRAIN
from compress.methods.tucker2 import TUCKER2

METHODS: Final = MappingProxyType(
    {
        method.name: method
        for method in (
            SVD,
            SPATIAL_SVD,
            TUCKER2,
            CP3,
            CP4,
            TENSOR_TRAIN,
            BLOCK_TERM,
            KRONECKER,
            SEMI_TENSOR,
            HIERARCHICAL_TUCKER,
        )
    }
)


def method_named(name: str) -> Method:
    """The method of a plan's choice.

    Raises:
        PlanError: there is none of this name.
    """
    if name not in METHODS:
        raise PlanError(f"method {name!r} came, one of {', '.join(METHODS)} was wanted")
    return METHODS[name]
