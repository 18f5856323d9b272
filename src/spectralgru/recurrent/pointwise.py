# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""Triton kernels: the pointwise work of a GRU step, all replicas at once, and dropout masks. Needs triton.

Tensors are views [R, B, width] of one time step, contiguous except for the stride between replicas (`s_*`). A program
handles BLOCK units of one sequence. Arithmetic is in float32, whatever the type of the tensors.
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
def _at(batch, width, BLOCK: tl.constexpr):
    """Replica, row in the replica, columns, and which columns exist."""
    row = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    return (row // batch).to(tl.int64), row % batch, column, column < width


@triton.jit
def _load(pointer, offset, mask):
    return tl.load(pointer + offset, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def gates_forward(rz, h, q, s_rz, s_h, s_q, batch, hidden, BLOCK: tl.constexpr):
    """r, z = sigm in place; q = r * h."""
    replica, row, column, mask = _at(batch, hidden, BLOCK)
    at_r = replica * s_rz + row * 2 * hidden + column
    r = tl.sigmoid(_load(rz, at_r, mask))
    z = tl.sigmoid(_load(rz, at_r + hidden, mask))
    state = _load(h, replica * s_h + row * hidden + column, mask)
    tl.store(rz + at_r, r, mask=mask)
    tl.store(rz + at_r + hidden, z, mask=mask)
    tl.store(q + replica * s_q + row * hidden + column, r * state, mask=mask)


@triton.jit
def state_forward(
    rz, h, n, q, new, held, keep, s_rz, s_h, s_n, s_q, s_new, s_keep, batch, hidden,
    BEFORE: tl.constexpr, KEEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Candidate in place (reset after: also the gates); new state; `held`: that state as the next step sees it."""
    replica, row, column, mask = _at(batch, hidden, BLOCK)
    at_r = replica * s_rz + row * 2 * hidden + column
    at_h = row * hidden + column
    candidate = _load(n, replica * s_n + at_h, mask)
    if BEFORE:
        z = _load(rz, at_r + hidden, mask)
    else:
        r = tl.sigmoid(_load(rz, at_r, mask))
        z = tl.sigmoid(_load(rz, at_r + hidden, mask))
        tl.store(rz + at_r, r, mask=mask)
        tl.store(rz + at_r + hidden, z, mask=mask)
        candidate += r * _load(q, replica * s_q + at_h, mask)
    candidate = _tanh(candidate)
    state = candidate + z * (_load(h, replica * s_h + at_h, mask) - candidate)
    tl.store(n + replica * s_n + at_h, candidate, mask=mask)
    tl.store(new + replica * s_new + at_h, state, mask=mask)
    if KEEP:
        kept = tl.load(keep + replica * s_keep + row).to(tl.float32)
        tl.store(held + replica * batch * hidden + at_h, state * kept, mask=mask)


@triton.jit
def state_backward(
    grad, carry, keep, rz, h, n, q, d_rz, d_n, d_q, s_h, s_rz, s_t, s_keep, batch, hidden,
    BEFORE: tl.constexpr, KEEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dh = grad + carry * keep; gradients by the arguments of tanh and sigm (z; reset after: r too); carry = dh * z.

    `s_t`: of the tensors [R, T, B, H], grad, n, q, d_n and d_q; `s_rz`: of rz and d_rz.
    """
    replica, row, column, mask = _at(batch, hidden, BLOCK)
    at_r = replica * s_rz + row * 2 * hidden + column
    at_h = row * hidden + column
    at_t = replica * s_t + at_h
    at_carry = replica * batch * hidden + at_h
    back = _load(carry, at_carry, mask)
    if KEEP:
        back *= tl.load(keep + replica * s_keep + row).to(tl.float32)
    dh = _load(grad, at_t, mask) + back
    z = _load(rz, at_r + hidden, mask)
    candidate = _load(n, at_t, mask)
    state = _load(h, replica * s_h + at_h, mask)
    by_n = dh * (1 - z) * (1 - candidate * candidate)
    tl.store(d_n + at_t, by_n, mask=mask)
    tl.store(d_rz + at_r + hidden, dh * (state - candidate) * z * (1 - z), mask=mask)
    tl.store(carry + at_carry, dh * z, mask=mask)
    if not BEFORE:
        r = _load(rz, at_r, mask)
        tl.store(d_rz + at_r, by_n * _load(q, at_t, mask) * r * (1 - r), mask=mask)
        tl.store(d_q + at_t, by_n * r, mask=mask)


@triton.jit
def gates_backward(
    drh, carry, rz, h, d_rz, s_h, s_rz, batch, hidden, BLOCK: tl.constexpr
):  # fmt: skip
    """From d(r * h): the gradient by the argument of sigm (r); carry += drh * r."""
    replica, row, column, mask = _at(batch, hidden, BLOCK)
    at_r = replica * s_rz + row * 2 * hidden + column
    at_carry = replica * batch * hidden + row * hidden + column
    r = _load(rz, at_r, mask)
    back = _load(drh, at_carry, mask)
    state = _load(h, replica * s_h + row * hidden + column, mask)
    tl.store(d_rz + at_r, back * state * r * (1 - r), mask=mask)
    tl.store(carry + at_carry, _load(carry, at_carry, mask) + back * r, mask=mask)


@triton.jit
def dropout(masks, seeds, drawn, length, limit, factor, BLOCK: tl.constexpr):
    """As `dropout.cpp`, masks [R, length]."""
    replica = tl.program_id(0).to(tl.int64)
    groups = (length + 3) // 4
    group = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    zero = group * 0
    step = zero + tl.load(drawn).to(tl.int32)
    words = tl.philox(tl.load(seeds + replica), group, step, zero, zero)
    for j in tl.static_range(4):
        at = j * groups + group
        number = (words[j].to(tl.uint32, bitcast=True) >> 8).to(tl.int32)
        inside = (group < groups) & (at < length)
        tl.store(masks + replica * length + at, tl.where(number < limit, factor, 0.0), mask=inside)
