"""The tensors of a `.pt2` archive, read from the bytes they are stored as."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from compress.errors import ProgramError
from compress.program.archive import Archive
from compress.program.document import SHOWN
from compress.program.state import Payload, StoredTensor


def blank(state: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """Tensors of the shapes of `state`, without values: fake ones under a FakeTensorMode."""
    return _tied(state, lambda p: torch.empty(p.shape, dtype=_dtype(p)))


def load(archive: Archive, state: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """The tensors of `state`, on the CPU; tied ones are one tensor.

    Raises:
        ProgramError: bytes that changed, or values that are not finite.
    """
    return _tied(state, lambda payload: _values(archive, payload))


def _tied(
    state: Mapping[str, StoredTensor], make: Callable[[Payload], Tensor]
) -> dict[str, Tensor]:
    made: dict[tuple[Payload, bool, bool], Tensor] = {}
    tensors = {}
    for name, stored in state.items():
        key = (stored.payload, stored.is_parameter, stored.requires_grad)
        if key not in made:
            try:
                values = make(stored.payload)
            except ProgramError as error:
                error.add_note(f"in the tensor {name[:SHOWN]!r}")
                raise
            made[key] = _parameter(values, stored) if stored.is_parameter else values
        tensors[name] = made[key]
    return tensors


def _parameter(values: Tensor, stored: StoredTensor) -> nn.Parameter:
    return nn.Parameter(values, stored.requires_grad and values.is_floating_point())


def _values(archive: Archive, payload: Payload) -> Tensor:
    dtype = _dtype(payload)
    if not payload.values:
        return torch.empty(payload.shape, dtype=dtype)
    content = torch.empty(archive.members[payload.member].size, dtype=torch.uint8)
    archive.read_into(payload.member, content.numpy().data)
    flat = content[: payload.reach * dtype.itemsize]
    flat = flat.ne(0) if dtype == torch.bool else flat.view(dtype)  # a bool of 2 is no bool
    values = flat.as_strided(payload.shape, payload.strides, payload.offset)
    if values.is_floating_point() and not values.isfinite().all():
        raise ProgramError("it holds NaN or infinity: train again or mend the file")
    return values if payload.reach == payload.values else values.clone()


def _dtype(payload: Payload) -> torch.dtype:
    return getattr(torch, payload.dtype)
