"""The projection against the float64 SVD, and the facts about stability it rests on."""

import copy

import pytest
import torch

from spectralgru.errors import InputError
from spectralgru.projection.tracked import frobenius
from spectralgru.spectral import (
    SOLVERS,
    SpectralProjection,
    clip_singular_values,
    is_stable,
    jacobian_at_origin,
    spectral_radius,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def oracle(weight, max_sv):
    u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    return (u * s.clamp_max(max_sv).unsqueeze(-2)) @ vh


def with_singular_values(*values, n=None):
    n = n or len(values)
    u, v = (torch.linalg.qr(torch.randn(n, n, dtype=torch.float64)).Q for _ in range(2))
    s = torch.zeros(n, dtype=torch.float64)
    s[: len(values)] = torch.tensor(values, dtype=torch.float64)
    return ((u * s) @ v.T).float()


CASES = {
    "orthogonal": lambda: with_singular_values(*[1.0] * 40),
    "all above": lambda: with_singular_values(*[3.0] * 40),
    "none above": lambda: with_singular_values(*torch.linspace(0, 1.79, 40).tolist()),
    "few above": lambda: with_singular_values(*torch.linspace(0.1, 2, 60).tolist()),
    "clustered at the bound": lambda: with_singular_values(
        *([1.8] * 20 + [1.8 + 1e-6] * 5 + [1.8 - 1e-6] * 5 + [0.3] * 30)
    ),
    "rank one": lambda: with_singular_values(5.0, n=30),
    "zero": lambda: torch.zeros(20, 20),
    "huge": lambda: 1e8 * torch.randn(30, 30),
    "tiny": lambda: 1e-30 * torch.randn(30, 30),
    "wide range": lambda: with_singular_values(1e6, 1e3, 2.0, 1.9, 1.0, 1e-4, n=30),
    "1x1": lambda: torch.tensor([[-7.0]]),
    "wide": lambda: torch.randn(20, 50),
    "tall": lambda: torch.randn(50, 20),
}


@pytest.mark.parametrize("method", SOLVERS)
@pytest.mark.parametrize("name", CASES)
def test_clip_is_the_svd_s(name, method):
    weight = CASES[name]()
    if method == "eigh" and name in ("huge", "wide range"):
        pytest.skip("squaring loses these; auto falls back to the SVD")
    got = clip_singular_values(weight, 1.8, method)
    want = oracle(weight, 1.8)
    assert (got - want).norm() <= 1e-5 * want.norm()
    assert torch.linalg.svdvals(got.double())[0] <= 1.8 * (1 + 1e-6)


def test_clip_takes_batches_bounds_and_float64():
    weight = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    bounds = torch.tensor([[0.5, 1.0, torch.inf], [2.0, 3.0, 100.0]], dtype=torch.float64)
    got = clip_singular_values(weight, bounds)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(got[i, j], oracle(weight[i, j], bounds[i, j].item()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clip_singular_values(torch.eye(2), 0.0), "max_sv=0.0"),
        (lambda: clip_singular_values(torch.eye(2), 1.0, "magic"), "method='magic'"),
        (
            lambda: clip_singular_values(torch.ones(2, 3, 3), torch.ones(5)),
            r"max_sv has shape \[5\]; .* \[2\]",
        ),
        (lambda: spectral_radius(torch.ones(3, 4)), r"the matrix has shape \[3, 4\]"),
        (lambda: is_stable(torch.ones(0, 0)), r"the matrix has shape \[0, 0\]"),
        (lambda: clip_singular_values(torch.full((2, 2), torch.nan), 1.0), "not finite"),
        (lambda: SpectralProjection(torch.tensor([1.0, -1.0])), "positive"),
        (lambda: SpectralProjection(torch.tensor([1.0])).project_(torch.eye(2)), r"expected \[1, n, n\]"),
    ],
)
def test_wrong_use_names_the_thing_and_the_value(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("method", SOLVERS)
@pytest.mark.parametrize("name", [n for n in CASES if n not in ("wide", "tall")])
def test_project_holds_the_bound_in_place_on_a_view(name, method):
    if method == "eigh" and name in ("huge", "wide range"):
        pytest.skip("squaring loses these; auto falls back to the SVD")
    weight = CASES[name]()
    n = weight.shape[0]
    rows = torch.randn(2, 3 * n, n)
    rows[:, 2 * n :] = weight
    before = rows.clone()
    report = SpectralProjection(torch.tensor([1.8, torch.inf]), method).project_(rows[:, 2 * n :])
    assert torch.equal(rows[:, : 2 * n], before[:, : 2 * n])
    assert torch.equal(rows[1], before[1])
    want = oracle(weight, 1.8)
    assert (rows[0, 2 * n :] - want).norm() <= 1e-5 * want.norm()
    sigma = torch.linalg.svdvals(rows[:, 2 * n :].double())[:, 0]
    assert sigma[0] <= 1.8 * (1 + 1e-6)
    assert report.sigma_max[0] == pytest.approx(sigma[0].item(), rel=1e-5)
    assert report.sigma_max[1] == pytest.approx(sigma[1].item(), rel=1e-2)
    before = torch.linalg.svdvals(weight.double())  # values within rounding of the bound may count or not
    assert (before > 1.8 * (1 + 1e-5)).sum() <= report.saturated[0] <= (before > 1.8 * (1 - 1e-5)).sum()
    assert report.projected.tolist() == [bool(report.saturated[0] > 0), False]


@pytest.mark.parametrize("seed", range(3))
def test_updates_never_leave_a_value_above_the_bound(seed):
    torch.manual_seed(seed)
    n, bounds = 24, torch.tensor([0.6, 0.9, 1.8, torch.inf])
    weight = torch.linalg.qr(torch.randn(4, n, n)).Q
    projection, skipped = SpectralProjection(bounds), 0
    projection.project_(weight)
    for _ in range(60):
        update = torch.randn(4, n, n) * 10 ** torch.empty(4, 1, 1).uniform_(-4, -1)
        weight += update
        before = weight.clone()
        report = projection.project_(weight, update.double().flatten(1).norm(dim=1) * (1 + 1e-6))
        skipped += (~report.projected).sum().item()
        for i, bound in enumerate(bounds.tolist()):
            want = oracle(before[i], bound)
            assert (weight[i] - want).norm() <= 1e-5 * want.norm()
            assert torch.linalg.svdvals(weight[i].double())[0] <= bound * (1 + 1e-6)
    assert 60 < skipped < 240


def test_a_replica_that_is_not_finite_disturbs_nobody():
    weight = torch.randn(3, 10, 10)
    weight[1, 2, 3] = torch.nan
    alone = weight[::2].clone()
    report = SpectralProjection(torch.full((3,), 1.2)).project_(weight)
    other = SpectralProjection(torch.full((2,), 1.2)).project_(alone)
    torch.testing.assert_close(weight[::2], alone)
    torch.testing.assert_close(report.sigma_max[::2], other.sigma_max)
    assert report.sigma_max[1].isnan()
    assert not report.projected[1]


def test_state_dict_continues_bit_identically_and_select_keeps_replicas():
    weight = torch.randn(3, 16, 16)
    first = SpectralProjection(torch.tensor([1.0, 1.5, torch.inf]))
    first.project_(weight)
    second = SpectralProjection(torch.ones(3))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    weight += 0.01 * torch.randn(3, 16, 16)
    a, b, c = weight.clone(), weight.clone(), weight[[2, 0]].clone()
    norm = torch.full((3,), 1.0)
    one, two = first.project_(a, norm), second.project_(b, norm)
    assert torch.equal(a, b)
    assert torch.equal(one.sigma_max, two.sigma_max)
    second.select(torch.tensor([2, 0]))
    second.project_(c)
    torch.testing.assert_close(c, a[[2, 0]])


def test_stability_at_the_origin():
    weight = torch.randn(5, 8, 8, dtype=torch.float64)
    h = torch.zeros(8, dtype=torch.float64)

    # x = 0; gates see W = 0 because they enter the Jacobian at the origin only through their value.
    def step(h):
        return 0.5 * h + 0.5 * torch.tanh(weight[0] @ (0.5 * h))

    torch.testing.assert_close(torch.autograd.functional.jacobian(step, h), jacobian_at_origin(weight[0]))
    torch.testing.assert_close(
        spectral_radius(weight), torch.stack([torch.linalg.eigvals(w).abs().max() for w in weight])
    )
    assert is_stable(clip_singular_values(weight, 1.99)).all()
    assert not is_stable(2.1 * torch.eye(3))
    assert spectral_radius(torch.full((2, 2), torch.nan)).isnan()


def check(before, after, bound):
    """What every call of `project_` guarantees."""
    want = oracle(before, bound)
    assert (after - want).norm() <= 1e-5 * want.norm()
    assert torch.linalg.svdvals(after.double())[0] <= bound * (1 + 1e-6)


@pytest.mark.parametrize("n", [50, 200, 650])
@pytest.mark.parametrize("times", [1.9, 2.5, 3.9, 4.1])
def test_all_values_far_above_the_bound(n, times):
    weight = times * 1.8 * torch.linalg.qr(torch.randn(1, n, n)).Q
    before = weight.clone()
    SpectralProjection(torch.tensor([1.8])).project_(weight)
    check(before[0], weight[0], 1.8)


@pytest.mark.parametrize("n", [2, 17, 200])
@pytest.mark.parametrize("times", [2.5, 3.9, 10, 100, 500])
def test_one_value_far_above_the_bound(n, times):
    for seed in range(10):
        torch.manual_seed(seed)
        weight = 0.85 * torch.randn(1, n, n) / n**0.5
        projection = SpectralProjection(torch.tensor([1.8]))
        projection.project_(weight)
        before = weight.clone()
        if seed % 2:
            weight[0, seed % n, -1] += times * 1.8
        else:
            u, v = (torch.nn.functional.normalize(torch.randn(n), dim=0) for _ in range(2))
            weight += times * 1.8 * torch.outer(u, v)
        moved, before = (weight - before).double().flatten(1).norm(dim=1), weight.clone()
        projection.project_(weight, moved)
        check(before[0], weight[0], 1.8)


def test_a_large_value_in_a_direction_never_seen_is_noticed():
    weight = torch.diag(torch.linspace(1.2, 0.1, 40))[None]
    projection = SpectralProjection(torch.tensor([torch.inf]))
    projection.project_(weight)
    weight[0, 39, 38] = 50
    assert projection.project_(weight).sigma_max.item() == pytest.approx(50, rel=2e-2)


def test_sigma_max_follows_a_matrix_that_moves_slowly_in_every_direction_at_once():
    """Most of these calls only ask the vector that led before."""
    weight = torch.linalg.qr(torch.randn(1, 60, 60)).Q
    projection, update = SpectralProjection(torch.tensor([1.8])), torch.randn(1, 60, 60)
    projection.project_(weight)
    for step in range(200):
        if step % 50 == 0:
            update = 0.01 * torch.nn.functional.normalize(torch.randn(1, 3600), dim=1).view(1, 60, 60)
        weight += update
        report = projection.project_(weight, torch.tensor([0.01001]))
        sigma = torch.linalg.svdvals(weight[0].double())[0].item()
        assert 0.98 * sigma <= report.sigma_max.item() <= sigma * (1 + 1e-6)


def test_the_norm_of_an_update_is_no_smaller_than_it_is():
    """Bounds are carried from step to step by it; a single float32 sum of 4 million squares loses the fifth digit."""
    update = torch.randn(1, 2000, 2000)
    assert frobenius(update).item() == pytest.approx(update.double().norm().item(), rel=1e-6)


def test_a_state_of_an_earlier_version_is_taken():
    projection = SpectralProjection(torch.tensor([1.8]))
    projection.project_(torch.randn(1, 16, 16))
    state = projection.state_dict()
    del state["memories"][0]["seen"]
    other = SpectralProjection(torch.ones(1))
    other.load_state_dict(state)
    weight = 0.1 * torch.randn(1, 16, 16)
    expected = torch.linalg.svdvals(weight[0])[0].item()
    assert other.project_(weight, torch.tensor([0.0])).sigma_max.item() == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_of_half_precision_stays_inside_the_bound(dtype):
    weight = (20 * torch.randn(1, 64, 64) / 8).to(dtype)
    projection = SpectralProjection(torch.tensor([1.998]))
    for _ in range(4):
        report = projection.project_(weight)
        sigma = torch.linalg.svdvals(weight[0].double())[0].item()
        assert 1.95 < sigma <= 1.998
        assert report.sigma_max.item() == pytest.approx(sigma, rel=1e-2)
        weight += (0.01 * torch.randn(1, 64, 64)).to(dtype)


@pytest.mark.parametrize("method", SOLVERS)
def test_the_type_of_the_matrices_may_change(method):
    weight = 0.95 * torch.randn(1, 64, 64) / 8
    projection = SpectralProjection(torch.tensor([1.8]), method)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float32):
        weight = (weight + 0.01 * torch.randn(1, 64, 64)).to(dtype)
        before = weight.clone()
        projection.project_(weight)
        if dtype != torch.bfloat16:
            check(before[0], weight[0], 1.8)


@pytest.mark.parametrize("method", SOLVERS)
@pytest.mark.parametrize(("scale", "bound"), [(1e160, 1e160), (1e-200, 1e-200), (1e-310, 1e-310)])
def test_clip_at_the_ends_of_float64(method, scale, bound):
    weight = torch.randn(12, 12, dtype=torch.float64)
    got = clip_singular_values(scale * weight, bound, method) / scale
    torch.testing.assert_close(got, oracle(weight, bound / scale), rtol=1e-9, atol=1e-9)


def test_clip_takes_wide_matrices_far_above_the_bound():
    weight = 1e5 * torch.randn(3, 5, 40)
    got = clip_singular_values(weight, 1.8)
    assert (got - oracle(weight, 1.8)).norm() <= 1e-5 * got.norm()


@pytest.mark.parametrize(
    "weight",
    [
        torch.ones(3, 3, dtype=torch.int64),
        torch.ones(3),
        torch.ones(0, 3, 3),
        torch.eye(3).to_sparse(),
        torch.eye(3, device="meta"),
    ],
)
def test_clip_refuses_what_is_no_matrix(weight):
    with pytest.raises(InputError, match="expected floating point"):
        clip_singular_values(weight, 1.0)


def test_stability_in_half_precision():
    assert is_stable(torch.eye(3, dtype=torch.bfloat16))
    assert not is_stable(3 * torch.eye(3, dtype=torch.float16))
