"""The projection on a GPU, by itself and in a CUDA graph, against the float64 SVD after every step."""

import pytest
import torch

from spectralgru import SpectralConstraint
from spectralgru.projection.batched import BatchedProjection
from spectralgru.projection.by_products import spectral_radius
from spectralgru.projection.tracked import SpectralProjection

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

BOUNDS = torch.tensor([0.6, 0.9, 1.8, float("inf")])


def check(before, after, bounds, sigma_max):
    u, s, vh = torch.linalg.svd(before.cpu().double())
    limit = bounds.double()[:, None]
    want = (u * s.minimum(limit).unsqueeze(-2)) @ vh
    error = (after.cpu() - want).flatten(1).norm(dim=1) / want.flatten(1).norm(dim=1).clamp_min(1e-30)
    assert error.max() <= 1e-5
    sigma = torch.linalg.svdvals(after.cpu().double())[:, 0]
    assert (sigma <= limit[:, 0] * (1 + 1e-6)).all()
    assert (sigma_max.cpu() <= sigma * (1 + 1e-5)).all()
    assert (sigma_max.cpu() >= 0.98 * sigma).all()  # measured, not proven


def updates(n, size):
    low = torch.randn(len(BOUNDS), n, 3) @ torch.randn(len(BOUNDS), 3, n)
    full = torch.randn(len(BOUNDS), n, n)
    return (size * (low / low.norm() + 0.1 * full / full.norm())).cuda()


@pytest.mark.parametrize("n", [1, 7, 40, 200, 650])
@pytest.mark.parametrize("start", [1.0, 0.5])
def test_eager_and_captured_equal_the_svd(n, start):
    torch.manual_seed(n)
    weight = start * torch.linalg.qr(torch.randn(n, n)).Q.expand(len(BOUNDS), n, n).contiguous().cuda()
    projection, other = BatchedProjection(BOUNDS.cuda()), BatchedProjection(BOUNDS.cuda())
    graph, captured = None, weight.clone()
    for step in range(8):
        change = updates(n, 0.3)
        weight += change
        captured += change
        before, before_captured = weight.clone(), captured.clone()
        projection.start(weight)
        projection.clip_rest(weight, projection.unproven())
        check(before, weight, BOUNDS, projection.sigma_max)
        if step == 2:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                other.start(captured)
        if graph is None:
            other.start(captured)
        else:
            graph.replay()
        other.clip_rest(captured, other.unproven())
        check(before_captured, captured, BOUNDS, other.sigma_max)


def test_start_never_waits_for_the_device():
    torch.manual_seed(0)
    weight = torch.randn(4, 200, 200, device="cuda") / 14
    projection = BatchedProjection(BOUNDS.cuda())
    projection.start(weight)
    torch.cuda.set_sync_debug_mode("error")
    try:
        projection.start(weight)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_matrices_that_are_not_finite_huge_or_zero():
    torch.manual_seed(0)
    weight = torch.randn(4, 200, 200, device="cuda")
    weight[0, 1, 2], weight[3] = float("nan"), 0
    weight[1] *= 1e8
    before = weight.clone()
    projection = SpectralProjection(BOUNDS)
    report = projection.project_(weight)
    assert report.sigma_max.isnan().tolist() == [True, False, False, False]
    assert torch.equal(weight[0].nan_to_num(), before[0].nan_to_num())
    check(before[1:], weight[1:], BOUNDS[1:], report.sigma_max[1:])
    restored = SpectralProjection(BOUNDS)
    restored.load_state_dict(projection.state_dict())
    again = weight.clone()
    for p, w in ((projection, weight), (restored, again)):
        p.project_(w)
    assert torch.equal(weight.nan_to_num(), again.nan_to_num())


@pytest.mark.parametrize("kind", [torch.nn.GRU, torch.nn.LSTM])
def test_constraint_on_torch_s_modules(kind):
    torch.manual_seed(0)
    module = kind(30, 64, 2, bias=False, device="cuda")
    constraint = SpectralConstraint(module, delta=0.5)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    handle = constraint.attach(optimizer)
    for _ in range(5):
        module(torch.randn(10, 4, 30, device="cuda"))[0].square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        for layer in range(2):
            rows = slice(128, 192)  # the candidate's, in both kinds
            sigma = torch.linalg.svdvals(getattr(module, f"weight_hh_l{layer}")[rows].double())
            assert sigma[0] <= 1.5 * (1 + 1e-6)
    handle.remove()


def test_spectral_radius():
    torch.manual_seed(0)
    matrices = torch.randn(3, 200, 200) / 14
    want = torch.linalg.eigvals(matrices.double()).abs().amax(-1)
    torch.testing.assert_close(spectral_radius(matrices.cuda()).cpu().double(), want, rtol=5e-5, atol=0)
