"""Losses of the output layer against PyTorch's in float64, with their gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectralgru.recurrent import softmax
from spectralgru.training.losses import cross_entropy

HALF = 2**-8  # bfloat16 keeps eight bits


def case(runs, rows, width, hidden, seed):
    torch.manual_seed(seed)
    x, weight, bias = (torch.randn(runs, *shape) for shape in ((rows, hidden), (width, hidden), (width,)))
    counted = (torch.rand(runs, rows) < 0.8).float()
    return x, weight, 3 * bias, torch.randint(width, (rows,)), counted


def outcome(x, weight, bias, targets, counted, slope, dtype):
    """The loss and its gradients, of factors of this type; in float64 by PyTorch's own."""
    types = (dtype, dtype, torch.float64 if dtype == torch.float64 else torch.float32)
    leaves = [
        t.to(kind, copy=True).requires_grad_() for t, kind in zip((x, weight, bias), types, strict=True)
    ]
    if dtype == torch.float64:
        logits = leaves[0] @ leaves[1].mT + leaves[2].unsqueeze(1)
        each = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), targets.expand(counted.shape), reduction="none"
        )
        loss = (each * counted).sum(1)
    else:
        loss = cross_entropy(*leaves, targets, counted)
    (loss * slope).sum().backward()
    return [loss.detach(), *(leaf.grad for leaf in leaves)]


@settings(deadline=None)
@given(
    runs=st.integers(1, 3),
    rows=st.integers(1, 9),
    width=st.integers(1, 70),
    low=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_any_shape_is_what_float64_says(runs, rows, width, low, seed):
    x, weight, *rest = case(runs, rows, width, 5, seed)
    dtype = torch.bfloat16 if low else torch.float32
    x, weight = x.to(dtype), weight.to(dtype)  # the same rounded factors for both
    slope = torch.rand(runs) + 0.5
    found, expected = (outcome(x, weight, *rest, slope, d) for d in (dtype, torch.float64))
    error = 4 * HALF if low else 1e-5
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=error * max(1, float(b.abs().max())))
    assert [t.dtype for t in found] == [torch.float32, dtype, dtype, torch.float32]


@pytest.mark.skipif(not softmax.usable(torch.zeros(1).bfloat16()), reason="no C++ compiler")
def test_low_logits_do_not_depend_on_threads_or_company_and_keep_exact_sums():
    x, weight, bias, targets, counted = case(3, 40, 1003, 64, 0)
    given = x.bfloat16(), weight.bfloat16(), bias, targets, counted
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(outcome(*given, torch.ones(3), torch.bfloat16))
    torch.set_num_threads(1)
    alone = [t[1:2] for t in given[:3]]
    results.append(outcome(*alone, targets, counted[1:2], torch.ones(1), torch.bfloat16))
    for other in results[1:3]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert all(torch.equal(a[1:2], b) for a, b in zip(results[0], results[3], strict=True))
    # Of the same logits, rounded: the sums themselves are float32's.
    logits = torch.stack([a @ b.mT for a, b in zip(given[0], given[1], strict=True)])
    exact = (logits.double() + bias.double().unsqueeze(1)).log_softmax(-1)
    each = -exact.gather(-1, targets.expand(3, -1).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(results[0][0].double(), (each * counted).sum(1), rtol=1e-6, atol=0)
    d = exact.exp().scatter_add_(-1, targets.expand(3, -1).unsqueeze(-1), -torch.ones(3, 40, 1).double())
    torch.testing.assert_close(
        results[0][3].double(), (d * counted.unsqueeze(-1)).sum(1), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_that_has_diverged_stays_not_finite(value, dtype):
    x, weight, bias, targets, counted = case(2, 6, 40, 5, 1)
    x[0, 2] = value
    found = outcome(x, weight, bias, targets, torch.ones_like(counted), torch.ones(2), dtype)
    assert not any(bool(t[0].isfinite().all()) for t in found)
    assert all(bool(t[1].isfinite().all()) for t in found)
