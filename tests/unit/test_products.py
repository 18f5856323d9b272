"""Products of the layers around the recurrence, against PyTorch's own in float64."""

import pytest
import torch

from spectralgru.recurrent.products import WORTH_ONEDNN, linear


@pytest.mark.parametrize("replicas", [(), (1,), (3,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [40, 200])  # below and above what oneDNN is worth
def test_a_linear_layer_and_its_gradients(replicas, dtype, size):
    torch.manual_seed(size)
    assert (size * size * 35 >= WORTH_ONEDNN) == (size == 200)
    x, weight, bias = (torch.randn(*replicas, *shape) for shape in ((5, 7, size), (size, size), (size,)))
    given = [x.to(dtype), weight.to(dtype), bias]  # the bias in float32 whatever the factors
    leaves = [t.clone().requires_grad_() for t in given]
    exact = [t.double().requires_grad_() for t in given]
    result = linear(*leaves)
    expected = (exact[0] @ exact[1].mT.unsqueeze(-3)) + exact[2][..., None, None, :]
    slope = torch.randn_like(expected)
    result.backward(slope.to(result))
    expected.backward(slope)
    assert result.dtype == torch.float32
    error = 1e-5 if dtype == torch.float32 else 2**-7
    for found, wanted in [
        (result, expected),
        *((a.grad, b.grad) for a, b in zip(leaves, exact, strict=True)),
    ]:
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=error * float(wanted.abs().max()))
    assert [leaf.grad.dtype for leaf in leaves] == [t.dtype for t in given]


def test_under_autocast_a_bias_follows_the_factors():
    x, weight, bias = torch.randn(4, 8), torch.randn(6, 8), torch.randn(6)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
