"""The operators that a program may call: a fixed table, names alone.

All compute from their arguments, and the size of what they return follows from shapes and
settings, so that a run without memory tells what a real one needs. None of them draws random
numbers, opens a file, or makes a tensor of another's memory past its end. Dropout and the
attention of `scaled_dot_product_attention` draw in train mode alone.

Importable without torch.
"""

from typing import Final

ATEN: Final = "torch.ops.aten."

LAYERS: Final = """
    batch_norm.default bilinear.default
    conv1d.default conv1d.padding conv2d.default conv2d.padding conv3d.default conv3d.padding
    conv_transpose1d.default conv_transpose2d.input conv_transpose3d.input
    alpha_dropout.default dropout.default dropout_.default
    feature_alpha_dropout.default feature_dropout.default feature_dropout_.default
    embedding.default group_norm.default gru.input instance_norm.default layer_norm.default
    linear.default lstm.input prelu.default rms_norm.default rnn_relu.input rnn_tanh.input
    scaled_dot_product_attention.default _weight_norm.default
"""

ACTIVATIONS: Final = """
    celu.default celu_.default elu.default elu_.default gelu.default glu.default
    hardshrink.default hardsigmoid.default hardsigmoid_.default hardswish.default
    hardswish_.default hardtanh.default hardtanh_.default leaky_relu.default leaky_relu_.default
    log_sigmoid.default log_softmax.int mish.default mish_.default relu.default relu_.default
    relu6.default relu6_.default selu.default selu_.default sigmoid.default sigmoid_.default
    silu.default silu_.default softmax.int softplus.default softshrink.default tanh.default
    tanh_.default threshold.default threshold_.default
"""

POOLING: Final = """
    adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_avg_pool3d.default
    adaptive_max_pool1d.default adaptive_max_pool2d.default adaptive_max_pool3d.default
    avg_pool1d.default avg_pool2d.default avg_pool3d.default
    max_pool1d.default max_pool2d.default max_pool3d.default
    max_pool1d_with_indices.default max_pool2d_with_indices.default max_pool3d_with_indices.default
    affine_grid_generator.default col2im.default grid_sampler.default im2col.default
    pixel_shuffle.default pixel_unshuffle.default channel_shuffle.default
    upsample_bicubic2d.vec upsample_bilinear2d.vec upsample_linear1d.vec upsample_nearest1d.vec
    upsample_nearest2d.vec upsample_nearest3d.vec upsample_trilinear3d.vec
"""

ARITHMETIC: Final = """
    abs.default add.Scalar add.Tensor add_.Scalar add_.Tensor addcdiv.default addcmul.default
    ceil.default clamp.Tensor clamp.default clamp_.default clamp_max.default clamp_min.default
    clamp_min_.default cos.default cumsum.default div.Scalar div.Scalar_mode div.Tensor
    div.Tensor_mode div_.Scalar div_.Tensor erf.default exp.default exp_.default expm1.default
    floor.default floor_divide.Scalar floor_divide.default lerp.Scalar lerp.Tensor log.default
    log1p.default log2.default maximum.default minimum.default mul.Scalar mul.Tensor mul_.Scalar
    mul_.Tensor neg.default pow.Scalar pow.Tensor_Scalar pow.Tensor_Tensor reciprocal.default
    remainder.Scalar remainder.Tensor round.default rsqrt.default rsub.Scalar sign.default
    sin.default sqrt.default square.default sub.Scalar sub.Tensor sub_.Scalar sub_.Tensor
    tan.default
"""

PRODUCTS: Final = """
    addbmm.default addmm.default addmv.default baddbmm.default bmm.default chain_matmul.default
    cosine_similarity.default dot.default einsum.default matmul.default mm.default mv.default
    outer.default vdot.default
"""

REDUCTIONS: Final = """
    all.default all.dim amax.default amin.default any.default any.dim argmax.default
    argmin.default linalg_vector_norm.default logsumexp.default max.default max.dim mean.default
    mean.dim min.default min.dim norm.ScalarOpt_dim prod.default prod.dim_int std.correction
    std.default std.dim std_mean.correction sum.default sum.dim_IntList topk.default
    var.correction var.default var.dim var_mean.correction var_mean.dim
"""

COMPARISONS: Final = """
    bitwise_and.Tensor bitwise_not.default bitwise_or.Tensor eq.Scalar eq.Tensor ge.Scalar
    ge.Tensor gt.Scalar gt.Tensor isfinite.default isinf.default isnan.default le.Scalar
    le.Tensor logical_and.default logical_not.default logical_or.default lt.Scalar lt.Tensor
    masked_fill.Scalar masked_fill.Tensor masked_fill_.Scalar masked_fill_.Tensor
    nan_to_num.default ne.Scalar ne.Tensor where.ScalarOther where.ScalarSelf where.self
"""

SHAPES: Final = """
    alias.default broadcast_tensors.default cat.default chunk.default clone.default
    concat.default constant_pad_nd.default contiguous.default copy_.default detach.default
    detach_.default diagonal.default expand.default expand_as.default flatten.using_ints
    flip.default gather.default index.Tensor index_select.default lift_fresh_copy.default
    meshgrid.indexing movedim.int movedim.intlist narrow.default numpy_T.default
    pad.default permute.default repeat.default repeat_interleave.self_int reshape.default
    reshape_as.default roll.default select.int slice.Tensor split.Tensor split.sizes
    split_with_sizes.default squeeze.default squeeze.dim squeeze.dims stack.default swapaxes.default
    swapdims.default t.default tensor_split.sections tile.default transpose.int tril.default
    triu.default type_as.default unbind.int unflatten.int unfold.default unsafe_chunk.default
    unsqueeze.default unsqueeze_.default view.default view_as.default
    to.device to.dtype to.dtype_layout to.other _to_copy.default
"""

FACTORIES: Final = """
    arange.default arange.start arange.start_step eye.default eye.m fill_.Scalar fill_.Tensor
    full.default full_like.default linspace.default new_full.default new_ones.default
    new_zeros.default ones.default ones_like.default scalar_tensor.default zero_.default
    zeros.default zeros_like.default
"""

# Arithmetic on sizes, by the names of the functions that do it.
NUMBERS: Final = frozenset(
    [
        *(f"_operator.{name}" for name in ("add", "sub", "mul", "floordiv", "truediv", "mod")),
        *(f"_operator.{name}" for name in ("neg", "eq", "ne", "lt", "le", "gt", "ge")),
        *(f"torch.sym_{name}" for name in ("int", "float", "max", "min", "not")),
    ]
)

SIZE: Final = f"{ATEN}sym_size.int"

# Promises about sizes that the exporter wrote down; they compute nothing.
ASSERTIONS: Final = frozenset(
    f"{ATEN}{name}"
    for name in (
        "_assert_async.msg",
        "_assert_scalar.default",
        "_assert_tensor_metadata.default",
        "sym_constrain_range.default",
        "sym_constrain_range_for_size.default",
    )
)

TENSORS: Final = frozenset(
    f"{ATEN}{name}"
    for group in (
        LAYERS, ACTIVATIONS, POOLING, ARITHMETIC, PRODUCTS, REDUCTIONS, COMPARISONS, SHAPES,
        FACTORIES,
    )
    for name in group.split()
)  # fmt: skip

OPERATORS: Final = TENSORS | NUMBERS | ASSERTIONS | {SIZE}

# What stands at the start of an operator's name -> what its author can do.
HINTS: Final = {
    f"{ATEN}bernoulli": "it draws random numbers: export the network in eval mode",
    f"{ATEN}rand": "it draws random numbers: export the network in eval mode",
    f"{ATEN}convolution": "export again, and save what comes back before run_decompositions",
    f"{ATEN}_native_batch_norm": "export again, and save what comes back before run_decompositions",
    f"{ATEN}native_batch_norm": "export again, and save what comes back before run_decompositions",
    f"{ATEN}item": "a path or a size that depends on values is not read",
    f"{ATEN}nonzero": "a size that depends on values is not read",
    f"{ATEN}quantize": "a quantised network is not read: export it before quantisation",
    "torch.ops.quantized": "a quantised network is not read: export it before quantisation",
    "torch.ops.higher_order": "control flow and calls of subgraphs are not read",
}


def refusal(operator: str) -> str | None:
    """Why a program may not call the operator, and what to do; None for one in the table."""
    if operator in OPERATORS:
        return None
    hints = (hint for start, hint in HINTS.items() if operator.startswith(start))
    hint = next(hints, "write that part of the network with other operators, or leave it out")
    return f"operator {operator[:80]!r} is not among the {len(OPERATORS)} that are read: {hint}"
