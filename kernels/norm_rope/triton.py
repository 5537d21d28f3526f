"""Norm and rotation of some heads of one token, inside a kernel."""

import triton
import triton.language as tl


@triton.jit
def _load_channels(
    source,
    norm,
    head,
    channel,
    inside,
    HEAD_DIM: tl.constexpr,
    HAS_NORM: tl.constexpr,
    NORM_OFFSET: tl.constexpr,
):
    """Channels of the heads in fp32, and what the norm multiplies them by."""
    x = tl.load(source + head[:, None] * HEAD_DIM + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    if HAS_NORM:
        weight = tl.load(norm + channel, mask=channel < HEAD_DIM, other=0.0).to(tl.float32) + NORM_OFFSET
    else:
        weight = tl.full(channel.shape, 1.0, tl.float32)
    return x, weight


@triton.jit
def norm_and_rotate(
    source,  # [>= heads, HEAD_DIM]
    sink,  # [>= heads, HEAD_DIM]
    norm,  # [HEAD_DIM]
    cos_sin,  # [ROTARY_DIM], cosines, then sines of the token's position
    head,  # numbers of heads, a block
    kept,  # which of them are written
    eps,
    HEAD_DIM: tl.constexpr,
    ROTARY_DIM: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    HAS_NORM: tl.constexpr,
    NORM_OFFSET: tl.constexpr,  # added to the norm's weights
    BLOCK_HALF: tl.constexpr,  # >= ROTARY_DIM / 2
    BLOCK_REST: tl.constexpr,  # >= HEAD_DIM - ROTARY_DIM
):
    """Write the heads of ``source``, normed in fp32 and rotated, to ``sink``; rounded once, at the end."""
    element = sink.dtype.element_ty
    pair = tl.arange(0, BLOCK_HALF)
    in_pairs = kept[:, None] & (pair < ROTARY_DIM // 2)[None, :]
    if INTERLEAVED:
        first = 2 * pair
        second = 2 * pair + 1
    else:
        first = pair
        second = pair + ROTARY_DIM // 2
    rest = ROTARY_DIM + tl.arange(0, BLOCK_REST)
    in_rest = kept[:, None] & (rest < HEAD_DIM)[None, :]
    x, x_weight = _load_channels(source, norm, head, first, in_pairs, HEAD_DIM, HAS_NORM, NORM_OFFSET)
    y, y_weight = _load_channels(source, norm, head, second, in_pairs, HEAD_DIM, HAS_NORM, NORM_OFFSET)
    z, z_weight = _load_channels(source, norm, head, rest, in_rest, HEAD_DIM, HAS_NORM, NORM_OFFSET)
    if HAS_NORM:
        squares = tl.sum(x * x, 1) + tl.sum(y * y, 1) + tl.sum(z * z, 1)
        scale = tl.rsqrt(squares / HEAD_DIM + eps)[:, None]
        x = x * scale * x_weight[None, :]
        y = y * scale * y_weight[None, :]
        z = z * scale * z_weight[None, :]
    cos = tl.load(cos_sin + pair, mask=pair < ROTARY_DIM // 2, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(cos_sin + ROTARY_DIM // 2 + pair, mask=pair < ROTARY_DIM // 2, other=0.0).to(tl.float32)[None, :]
    out = sink + head[:, None] * HEAD_DIM
    tl.store(out + first[None, :], (x * cos - y * sin).to(element), mask=in_pairs)
    tl.store(out + second[None, :], (y * cos + x * sin).to(element), mask=in_pairs)
    if ROTARY_DIM < HEAD_DIM:
        tl.store(out + rest[None, :], z.to(element), mask=in_rest)
