"""The fast products and the sweep over all replicas at once (what a GPU runs) against the plain ones."""

import pytest
import torch

from spectralgru.recurrent import products, sweeps
from spectralgru.recurrent.gru import gru_layer


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def relative(got, want):
    return ((got.double() - want.double()).norm() / want.double().norm()).item()


@pytest.mark.parametrize("shape", [(3, 4, 5), (120, 100, 110)])
@pytest.mark.parametrize("replicas", [None, 3])
def test_products_of_any_layout(shape, replicas):
    m, k, n = shape
    assert products._onednn(torch.empty(m, k), torch.empty(k, n)) == (m > 100)
    lead = () if replicas is None else (replicas,)
    for a in (torch.randn(*lead, m, k), torch.randn(*lead, k, m).mT, torch.randn(*lead, m, 2 * k)[..., ::2]):
        for b in (torch.randn(*lead, k, n), torch.randn(*lead, n, k).mT):
            want = a.double() @ b.double()
            assert relative(products.matmul(a, b), want) < 1e-6
            if a.is_contiguous():
                c = torch.randn(*lead, m, n)
                wanted = c.double() + want
                for times in (1, 100):
                    assert relative(products.adder(b, m, times)(a, c.clone()), wanted) < 1e-6
                    assert relative(products.multiplier(b, m, times)(a), want) < 1e-6


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_without_onednn_the_result_is_the_same():
    a, b = torch.randn(200, 150), torch.randn(150, 180)
    fast = products.matmul(a, b)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not products._onednn(a, b)
        assert relative(products.matmul(a, b), fast) < 1e-6


@pytest.mark.parametrize("replicas", [None, 2])
def test_linear_is_torch_s(replicas):
    lead = () if replicas is None else (replicas,)
    x, weight = torch.randn(*lead, 7, 30, 100), torch.randn(*lead, 90, 100)
    weight_out = torch.randn(*lead, 7, 30, 90)
    leaves = [x.requires_grad_(), weight.requires_grad_()]
    got = products.linear(x, weight)
    want = x @ (weight.mT if replicas is None else weight.mT.unsqueeze(1))
    assert relative(got.detach(), want.detach()) < 1e-6
    grads = torch.autograd.grad((got * weight_out).sum(), leaves)
    for a, b in zip(grads, torch.autograd.grad((want * weight_out).sum(), leaves), strict=True):
        assert relative(a, b) < 1e-6


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("batch", "hidden"), [(2, 3), (16, 256)])
def test_all_replicas_at_once_and_one_after_the_other_agree(before, batch, hidden):
    replicas, steps, width = 2, 9, 20
    x, h0 = torch.randn(replicas, steps, batch, width), torch.randn(replicas, batch, hidden)
    w_ih, w_hh = (torch.randn(replicas, 3 * hidden, k) / hidden**0.5 for k in (width, hidden))
    keep = torch.rand(replicas, steps, batch, 1) < 0.8
    grad = torch.randn(replicas, steps, batch, hidden)
    inputs = sweeps.Inputs(x, h0, w_ih, w_hh, keep)
    activations = sweeps.forward(inputs, before)
    gradients = sweeps.backward(grad, inputs, activations, before, needs_x=True)
    leaves = [t.requires_grad_() for t in (x, h0, w_ih, w_hh)]
    output, _ = gru_layer(*leaves, ~keep.squeeze(-1), "before" if before else "after")
    assert relative(activations.states[:, 1:], output.detach()) < 1e-5
    for a, b in zip(gradients, torch.autograd.grad(output, leaves, grad), strict=True):
        assert relative(a, b) < 1e-5


def test_a_replica_computes_the_same_bits_in_any_company():
    x, h0 = torch.randn(3, 10, 16, 200), torch.zeros(3, 16, 200)
    w_ih, w_hh = torch.randn(3, 600, 200) / 14, torch.randn(3, 600, 200) / 14
    together, _ = gru_layer(x, h0, w_ih, w_hh)
    alone, _ = gru_layer(x[1], h0[1], w_ih[1], w_hh[1])
    assert torch.equal(together[1], alone)
