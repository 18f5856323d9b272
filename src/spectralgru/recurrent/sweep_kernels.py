# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""Triton kernels: the dependent products of a GRU's time step, each with the pointwise work that follows it.

Tensors are views [R, B, width] of one time step, contiguous except for the stride between replicas (`s_*`); weights are
contiguous. A program makes BLOCK_M x BLOCK_N numbers of one replica's step. Products of float32 are as precise as
PRECISION (of `tl.dot`) says; sums and pointwise arithmetic are in float32, whatever the type of the tensors. A kernel
writes nothing that one of its other programs reads.
"""

import triton
import triton.language as tl


@triton.jit
def _tanh(x):
    """Accurate for small x, too, where 2 sigm(2x) - 1 is not."""
    e = tl.exp(-2 * tl.abs(x))
    large = (1 - e) / (1 + e)
    s = x * x
    small = x * (1 - s * (0.33333333333 - s * (0.13333333333 - s * (0.05396825397 - s * 0.02186948854))))
    return tl.where(tl.abs(x) < 0.25, small, tl.where(x < 0, -large, large))


@triton.jit
def _at(BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """The program's replica, rows (of the batch) and columns (units)."""
    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    return tl.program_id(0).to(tl.int64), row, column


@triton.jit
def _block(matrix, row, rows, column, columns):
    """Those rows and columns of a matrix [rows, columns], zero beyond its edges."""
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(matrix + row[:, None] * columns + column[None, :], mask=mask, other=0.0)


@triton.jit
def _by_rows(total, left, weight, column, k, hidden, PRECISION: tl.constexpr):
    """total + left W^T, for the columns k of W [hidden, hidden] and its rows `column`."""
    right = _block(weight, column, hidden, k, hidden).T
    return tl.dot(left, right, total, input_precision=PRECISION)


@triton.jit
def _product(
    total, left, weight, row, column, batch, width, hidden, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """total + x W, with x [batch, width] and W [width, hidden]."""
    for first in range(0, width, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        right = _block(weight, k, width, column, hidden)
        total = tl.dot(_block(left, row, batch, k, width), right, total, input_precision=PRECISION)
    return total


@triton.jit
def _load(pointer, mask):
    return tl.load(pointer, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _finish(candidate, z, at, mask, h, n, new, held, keep, row, batch, KEEP: tl.constexpr):
    """n = tanh(candidate); the new state; `held`: that state as the next step sees it."""
    candidate = _tanh(candidate)
    state = candidate + z * (_load(h + at, mask) - candidate)
    tl.store(n + at, candidate, mask=mask)
    tl.store(new + at, state, mask=mask)
    if KEEP:
        tl.store(held + at, state * _load(keep + row, row < batch)[:, None], mask=mask)


@triton.jit
def forward_gates(
    h, weight, rz, n, q, new, held, keep, s_h, s_rz, s_t, s_new, s_keep, batch, hidden,
    BEFORE: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """r, z = sigm(rz + h W^T) in place. Reset before: q = r * h; after: q = W_hn h, and the candidate and the state.

    `s_t`: of n and q.
    """
    replica, row, column = _at(BLOCK_M, BLOCK_N)
    h += replica * s_h
    square = hidden * hidden
    weight += replica * 3 * square
    r = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    z = r
    by_n = r
    for first in range(0, hidden, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        state = _block(h, row, batch, k, hidden)
        r = _by_rows(r, state, weight, column, k, hidden, PRECISION)
        z = _by_rows(z, state, weight + square, column, k, hidden, PRECISION)
        if not BEFORE:
            by_n = _by_rows(by_n, state, weight + 2 * square, column, k, hidden, PRECISION)
    mask = (row < batch)[:, None] & (column < hidden)[None, :]
    at = row[:, None] * hidden + column[None, :]
    rz += replica * s_rz + row[:, None] * hidden
    r = tl.sigmoid(r + _load(rz + at, mask))
    z = tl.sigmoid(z + _load(rz + at + hidden, mask))
    tl.store(rz + at, r, mask=mask)
    tl.store(rz + at + hidden, z, mask=mask)
    q += replica * s_t
    if BEFORE:
        tl.store(q + at, r * _load(h + at, mask), mask=mask)
    else:
        tl.store(q + at, by_n, mask=mask)
        n += replica * s_t
        new += replica * s_new
        held += replica * batch * hidden
        keep += replica * s_keep
        candidate = _load(n + at, mask) + r * by_n
        _finish(candidate, z, at, mask, h, n, new, held, keep, row, batch, KEEP)


@triton.jit
def forward_state(
    h, weight, rz, n, q, new, held, keep, s_h, s_rz, s_t, s_new, s_keep, batch, hidden,
    KEEP: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Reset before: the candidate, tanh(n + q W_hn^T), in place of n, and the state."""
    replica, row, column = _at(BLOCK_M, BLOCK_N)
    q += replica * s_t
    weight += (replica * 3 + 2) * hidden * hidden
    candidate = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, hidden, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        left = _block(q, row, batch, k, hidden)
        candidate = _by_rows(candidate, left, weight, column, k, hidden, PRECISION)
    mask = (row < batch)[:, None] & (column < hidden)[None, :]
    at = row[:, None] * hidden + column[None, :]
    n += replica * s_t
    z = _load(rz + replica * s_rz + (row[:, None] + 1) * hidden + at, mask)
    candidate += _load(n + at, mask)
    h += replica * s_h
    new += replica * s_new
    held += replica * batch * hidden
    keep += replica * s_keep
    _finish(candidate, z, at, mask, h, n, new, held, keep, row, batch, KEEP)


@triton.jit
def backward_gates(
    d_n, weight, carry, rz, h, d_rz, s_t, s_rz, s_h, batch, hidden,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Reset before: from d(r * h) = d_n W_hn, the gradient by the argument of sigm (r); carry += d(r * h) * r."""
    replica, row, column = _at(BLOCK_M, BLOCK_N)
    back = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    weight += (replica * 3 + 2) * hidden * hidden
    left = d_n + replica * s_t
    back = _product(back, left, weight, row, column, batch, hidden, hidden, BLOCK_K, PRECISION)
    mask = (row < batch)[:, None] & (column < hidden)[None, :]
    at = row[:, None] * hidden + column[None, :]
    at_r = replica * s_rz + row[:, None] * hidden + at
    r = _load(rz + at_r, mask)
    tl.store(d_rz + at_r, back * _load(h + replica * s_h + at, mask) * r * (1 - r), mask=mask)
    carry += replica * batch * hidden + at
    tl.store(carry, _load(carry, mask) + back * r, mask=mask)


@triton.jit
def backward_state(
    later_rz, later_q, weight, carry, keep, grad, rz, h, n, q, d_rz, d_n, d_q, s_rz, s_t, s_h, s_keep,
    width, batch, hidden, BEFORE: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """From the gradients of the step after, carry += those times W; then dh = grad + carry * keep, the gradients by the
    arguments of tanh and sigm (z; reset after: r too), and carry = dh * z.

    `width`: hidden, or zero if there is no step after. `s_t`: of all tensors [R, T, B, H] but h; `s_rz`: of the gates.
    """
    replica, row, column = _at(BLOCK_M, BLOCK_N)
    mask = (row < batch)[:, None] & (column < hidden)[None, :]
    at = row[:, None] * hidden + column[None, :]
    weight += replica * 3 * hidden * hidden
    carry += replica * batch * hidden + at
    dh = _load(carry, mask)
    left = later_rz + replica * s_rz
    dh = _product(dh, left, weight, row, column, batch, 2 * width, hidden, BLOCK_K, PRECISION)
    if not BEFORE:
        left = later_q + replica * s_t
        weight += 2 * hidden * hidden
        dh = _product(dh, left, weight, row, column, batch, width, hidden, BLOCK_K, PRECISION)
    if KEEP:
        dh *= _load(keep + replica * s_keep + row, row < batch)[:, None]
    at_r = replica * s_rz + row[:, None] * hidden + at
    at_t = replica * s_t + at
    dh += _load(grad + at_t, mask)
    z = _load(rz + at_r + hidden, mask)
    candidate = _load(n + at_t, mask)
    state = _load(h + replica * s_h + at, mask)
    by_n = dh * (1 - z) * (1 - candidate * candidate)
    tl.store(d_n + at_t, by_n, mask=mask)
    tl.store(d_rz + at_r + hidden, dh * (state - candidate) * z * (1 - z), mask=mask)
    tl.store(carry, dh * z, mask=mask)
    if not BEFORE:
        r = _load(rz + at_r, mask)
        tl.store(d_rz + at_r, by_n * _load(q + at_t, mask) * r * (1 - r), mask=mask)
        tl.store(d_q + at_t, by_n * r, mask=mask)
