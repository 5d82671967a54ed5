"""What a network does as the dense one does it: no layer before is factorised, or narrowed.

To learn it again would cost most of the way back: early layers see the largest images.
"""

from contextlib import ExitStack

from torch import Tensor, nn

from compress.calibration import evaluating
from compress.layers import stands_in
from compress.widths.narrowing import is_narrowed


def unchanged(model: nn.Module, inputs: Tensor) -> frozenset[str]:
    """Parameters that are done with when the first factorised or narrowed layer is called.

    Args:
        model: of any mode, which is left to it.
        inputs: (N, ...) a batch, of one sample say.

    Returns:
        Names as `named_parameters` has them; none where no layer is either.
    """
    early, late, is_reached = set[nn.Module](), set[nn.Module](), False

    def begin(module: nn.Module, _args: object) -> None:
        nonlocal is_reached
        is_reached |= stands_in(module) or is_narrowed(module)

    def end(module: nn.Module, _args: object, _outputs: object) -> None:
        (late if is_reached else early).add(module)

    with evaluating(model), ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(begin).remove)
            stack.callback(module.register_forward_hook(end).remove)
        model(inputs)
    if not is_reached:
        return frozenset()
    kept = {id(own) for module in early - late for own in module.parameters(recurse=False)}
    return frozenset(name for name, weight in model.named_parameters() if id(weight) in kept)
