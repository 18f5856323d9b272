"""The projection of many matrices at once (as on a GPU), on a CPU: compared after every call with the float64 SVD."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import updates
from torch.utils._python_dispatch import TorchDispatchMode

from spectralgru.projection import by_products
from spectralgru.projection.batched import BatchedProjection

BOUNDS = torch.tensor([0.6, 1.2, 1.8, float("inf")])


@pytest.fixture(autouse=True)
def _threads():
    torch.set_num_threads(1)


def project(projection: BatchedProjection, weight: torch.Tensor) -> int:
    """One call; how many matrices had to be clipped as a whole."""
    projection.start(weight)
    left = projection.unproven()
    projection.clip_rest(weight, left)
    return len(left)


def check(before, after, projection, bounds=BOUNDS):
    u, s, vh = torch.linalg.svd(before.double())
    limit = bounds.double()[:, None]
    want = (u * s.minimum(limit).unsqueeze(-2)) @ vh
    error = (after - want).flatten(1).norm(dim=1) / want.flatten(1).norm(dim=1).clamp_min(1e-30)
    assert error.max() <= 1e-5
    sigma = torch.linalg.svdvals(after.double())[:, 0]
    assert (sigma <= limit[:, 0] * (1 + 1e-6)).all()
    assert (projection.sigma_max <= sigma * (1 + 1e-5)).all()
    assert (projection.sigma_max >= 0.99 * sigma).all()  # measured, not proven
    clipped = projection.saturated > 0
    assert torch.equal(before[~clipped], after[~clipped])
    assert clipped[s[:, 0] > limit[:, 0] * (1 + 1e-6)].all()


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.sampled_from([1, 2, 7, 40, 72]),
    rank=st.integers(1, 4),
    sizes=st.lists(st.floats(1e-7, 3.0), min_size=1, max_size=8),
)
def test_any_sequence_of_updates(seed, n, rank, sizes):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.stack([torch.linalg.qr(torch.randn(n, n, generator=generator)).Q for _ in BOUNDS])
    projection = BatchedProjection(BOUNDS)
    for size in sizes:
        weight = weight + torch.stack([updates(generator, n, rank, size) for _ in BOUNDS])
        before = weight.clone()
        project(projection, weight)
        check(before, weight, projection)


def spectrum(values, generator):
    n = len(values)
    u, v = (torch.linalg.qr(torch.randn(n, n, generator=generator).double()).Q for _ in range(2))
    return ((u * torch.tensor(values).double()) @ v.T).float()


@pytest.mark.parametrize(
    "values",
    [
        [1.2] * 48,  # all at the bound
        [1.2 * (1 + 1e-6 * (i - 24)) for i in range(48)],  # clustered around it
        [1.2 * (1 + 1e-4 * (i - 24)) for i in range(48)],
        [3.0] * 48,  # all above
        [0.1] * 48,  # none above
        [5.0] + [0.0] * 47,  # rank one
        [0.0] * 48,
        [1e-20] * 48,
        [1e8] + [1e-3] * 47,
        [1e8] * 48,
        [8.0 * 1.2] + [1.0] * 47,
        [30.0 - i / 2 for i in range(48)],
        [1.2 * 0.93] * 2 + [0.9] * 46,  # where the spectrum is split
    ],
)
@pytest.mark.parametrize("warm", [True, False])
def test_spectra_of_all_kinds(values, warm):
    generator = torch.Generator().manual_seed(1)
    bounds = torch.tensor([1.2, 1.2])
    projection = BatchedProjection(bounds)
    calm = torch.stack([spectrum([0.9**i for i in range(48)], generator) for _ in bounds])
    if warm:
        project(projection, calm)
    weight = torch.stack([spectrum(values, generator), calm[0]])
    for _ in range(3):
        before = weight.clone()
        project(projection, weight)
        u, s, vh = torch.linalg.svd(before.double())
        want = (u * s.clamp(max=1.2).unsqueeze(-2)) @ vh
        assert ((weight - want).flatten(1).norm(dim=1) <= 1e-5 * want.flatten(1).norm(dim=1)).all()
        assert (torch.linalg.svdvals(weight.double()) <= 1.2 * (1 + 1e-6)).all()
        assert (projection.sigma_max <= 1.2).all()


@pytest.mark.parametrize("entry", [float("nan"), float("inf")])
def test_a_matrix_that_is_not_finite_is_marked_and_disturbs_no_other(entry):
    generator = torch.Generator().manual_seed(0)
    bounds = torch.tensor([1.2, 1.2, float("inf")])
    alone, together = BatchedProjection(bounds[1:2]), BatchedProjection(bounds)
    weight = torch.randn(3, 40, 40, generator=generator)
    single = weight[1:2].clone()
    weight[0, 3, 5] = weight[2, 0, 0] = entry
    for _ in range(2):
        broken = weight[0].clone()
        project(together, weight)
        project(alone, single)
        assert torch.equal(weight[0].isfinite(), broken.isfinite())
        assert torch.equal(weight[0].nan_to_num(), broken.nan_to_num())
        assert together.sigma_max.isnan().tolist() == [True, False, True]
        assert together.saturated[0] == 0
        torch.testing.assert_close(weight[1:2], single, rtol=1e-6, atol=1e-7)
    weight[0] = single[0] * 3
    before = weight.clone()
    project(together, weight)
    check(before[:2], weight[:2], _Part(together), bounds[:2])


class _Part:
    def __init__(self, projection):
        self.sigma_max, self.saturated = projection.sigma_max[:2], projection.saturated[:2]


def test_few_values_above_need_no_whole_matrix():
    generator = torch.Generator().manual_seed(3)
    values = [1.5, 1.4, 1.3] + [0.8 * 0.99**i for i in range(77)]
    bounds = torch.full((4,), 1.2)
    projection = BatchedProjection(bounds)
    whole = []
    weight = torch.stack([spectrum(values, generator) for _ in bounds])
    for _ in range(6):
        weight = weight + torch.stack([updates(generator, 80, 2, 0.02) for _ in bounds])
        before = weight.clone()
        whole.append(project(projection, weight))
        check(before, weight, projection, bounds)
    assert whole[1:] == [0] * 5


@pytest.mark.parametrize("coupled", [False, True])
def test_a_value_that_the_basis_misses_fails_the_proof(coupled, monkeypatch):
    bounds = torch.tensor([1.2])
    projection = BatchedProjection(bounds)
    weight = torch.diag(torch.tensor([1.5, 1.4, 1.3] + [0.9**i for i in range(77)]))[None].contiguous()
    for _ in range(3):
        project(projection, weight)
    monkeypatch.setattr(BatchedProjection, "_filter", lambda self, w: None)
    assert project(projection, weight) == 0
    if coupled:
        weight[0, 0, 79] = (
            0.5  # turns the leading vectors, with nothing new above the bound outside the basis
        )
    else:
        weight[0, 79, 79] = 2
    before = weight.clone()
    assert project(projection, weight) == 1
    check(before, weight, projection, bounds)


def test_state_continues_with_the_same_bits_and_select_keeps_the_right_ones():
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(4, 40, 40, generator=generator) / 4
    projection = BatchedProjection(BOUNDS)
    project(projection, weight)
    restored = BatchedProjection(torch.ones(4))
    restored.load_state_dict(projection.state_dict())
    again = weight.clone()
    for _ in range(3):
        change = torch.stack([updates(generator, 40, 2, 0.1) for _ in BOUNDS])
        project(projection, weight.add_(change))
        project(restored, again.add_(change))
        assert torch.equal(weight, again)
        assert torch.equal(projection.sigma_max, restored.sigma_max)
    projection.select(torch.tensor([2, 0]))
    part = weight[[2, 0]] * 5
    before = part.clone()
    project(projection, part)
    check(before, part, projection, BOUNDS[[2, 0]])


def test_spectral_radius_equals_the_eigenvalues():
    generator = torch.Generator().manual_seed(7)
    matrices = torch.randn(6, 30, 30, generator=generator).double() / 5
    matrices[4] = 0
    matrices[5] = torch.triu(matrices[5], 1) * 100 + 0.7 * torch.eye(30)  # far from normal
    want = torch.linalg.eigvals(matrices).abs().amax(-1)
    want[5] = 0.7  # which eigvals finds less well
    got = by_products.spectral_radius(matrices)
    torch.testing.assert_close(got[:4], want[:4], rtol=2e-5, atol=0)
    assert got[4] < 1e-100
    assert 0.7 <= got[5] < 0.7 * (1 + 1e-3)


class Launches(TorchDispatchMode):
    """Counts the operations that a GPU would launch something for: all but views."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += not operation.is_view and operation is not torch.ops.aten._unsafe_view.default
        return operation(*args, **kwargs or {})


@pytest.mark.parametrize(("bounds", "budget"), [(BOUNDS, 304), (torch.full((4,), torch.inf), 152)])
def test_a_call_stays_within_its_budget_of_operations(bounds, budget):
    """Without triton; with it, 231 and 116 (`test_fused.py`).

    Small matrices cost a GPU their launches, however many there are. The products: 24 in two filters, 12 to make their
    columns orthonormal, 10 for the largest Ritz value; 38 for both projectors at once, one kernel with triton,
    as is each of 6 factorisations; 12 for the polar factor, 6 for the proof, which, like the projectors, only matrices
    with a bound need. The budget is what is reached: lower it with what is saved.
    """
    counts = []
    for matrices in (bounds, bounds.repeat(5)):
        projection, weight = BatchedProjection(matrices), torch.randn(len(matrices), 40, 40) / 5
        project(projection, weight)
        with Launches() as launches:
            projection.start(weight)
        counts.append(launches.count)
    assert counts[0] == counts[1] <= budget


def test_matrices_without_a_bound_are_only_watched():
    generator = torch.Generator().manual_seed(9)
    start = torch.randn(6, 40, 40, generator=generator) / 3
    some, every = (
        BatchedProjection(torch.tensor([1.2, torch.inf] * 3)),
        BatchedProjection(torch.full((3,), 1.2)),
    )
    mixed, alone = start.clone(), start[::2].clone()
    for _ in range(4):
        change = torch.stack([updates(generator, 40, 2, 0.1) for _ in range(6)])
        before = mixed.add_(change).clone()
        project(some, mixed)
        project(every, alone.add_(change[::2]))
        torch.testing.assert_close(mixed[::2], alone, rtol=1e-6, atol=1e-7)
        assert torch.equal(mixed[1::2], before[1::2])
        assert some.saturated[1::2].eq(0).all()
        assert torch.equal(some.saturated[::2], every.saturated)
