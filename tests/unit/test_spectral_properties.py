"""Whatever the updates, after every step: sigma_1 within the bound and the matrix that of the float64 SVD."""

import collections

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import updates

from spectralgru.projection import answers, subspace
from spectralgru.projection.clip import Whole
from spectralgru.projection.lapack import lapack
from spectralgru.projection.tracked import SpectralProjection
from spectralgru.recurrent.compiled import library

BOUNDS = (0.6, 1.2, 1.8)


@pytest.fixture(autouse=True)
def _threads():
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["C++", "PyTorch"])
def ways(request):
    """How often each way of projecting was taken over the tests of this module."""
    counts = collections.Counter()
    answered, holds = answers._answers, subspace._holds

    def counted(asked):
        results = answered(asked)
        for one, result in zip(asked, results, strict=True):
            if isinstance(one, Whole):
                counts["whole"] += 1
            elif one.bound is not None:
                counts["gave up" if result is None else "few"] += 1
            counts[request.param] += answers.usable(one)
        return results

    def counted_holds(*args):
        result = holds(*args)
        counts["proof" if result else "refuted"] += 1
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "_answers", counted)
        patch.setattr(subspace, "_holds", counted_holds)
        if request.param == "PyTorch":
            patch.setattr(answers, "usable", lambda asked: False)
        elif library() is None or lapack() is None:
            pytest.skip("no C++ compiler, or no MKL")
        yield counts


def check(before, after, report, bounds=BOUNDS):
    u, s, vh = torch.linalg.svd(before.double())
    limit = torch.tensor(bounds, dtype=torch.float64)[:, None]
    want = (u * s.minimum(limit).unsqueeze(-2)) @ vh
    error = (after - want).flatten(1).norm(dim=1) / want.flatten(1).norm(dim=1)
    assert error.max() <= 1e-5
    sigma = torch.linalg.svdvals(after.double())[:, 0]
    assert (sigma <= limit[:, 0] * (1 + 1e-6)).all()
    torch.testing.assert_close(report.sigma_max, sigma, rtol=2e-3, atol=0)  # measured, not proven
    unchanged = ~report.projected
    assert torch.equal(before[unchanged], after[unchanged])
    assert (report.saturated > 0).equal(report.projected)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.sampled_from([1, 2, 7, 40, 72]),
    rank=st.integers(1, 4),
    sizes=st.lists(st.floats(1e-7, 3.0), min_size=1, max_size=12),
    told=st.booleans(),
)
def test_any_sequence_of_updates(ways, seed, n, rank, sizes, told):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.linalg.qr(torch.randn(n, n, generator=generator)).Q.expand(3, n, n).clone()
    projector = SpectralProjection(torch.tensor(BOUNDS))
    for size in sizes:
        before = weight.clone()
        update = updates(generator, n, rank, size)
        weight += update
        moved = weight.clone()
        distance = (moved.double() - before.double()).flatten(1).norm(dim=1)
        report = projector.project_(weight, distance if told else None)
        check(moved, weight, report)


@pytest.mark.parametrize("decay", [1.0, 0.93])
@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_a_long_run_of_updates(ways, decay, drift):
    """Learning rate kept or decaying, updates in changing or in persistent directions: all ways are taken."""
    generator = torch.Generator().manual_seed(1)
    n, size = 96, 0.5
    weight = torch.linalg.qr(torch.randn(n, n, generator=generator)).Q.expand(3, n, n).clone()
    persistent = updates(generator, n, 2, 1.0)
    projector = SpectralProjection(torch.tensor(BOUNDS))
    projector.project_(weight)
    for _ in range(60):
        update = size * (drift * persistent + updates(generator, n, 3, 1.0)) - 0.02 * size * weight
        weight += update
        before = weight.clone()
        report = projector.project_(weight, update.double().flatten(1).norm(dim=1))
        check(before, weight, report)
        size *= decay


def test_every_way_was_taken(ways):
    expected = ["few", "whole", "C++" if "C++" in ways else "proof"]
    assert all(ways[way] > 5 for way in expected), ways


def test_a_direction_outside_the_tracked_subspace_is_found(ways):
    """The subspace method alone would not see it; the Cholesky factorisation does."""
    n = 64
    weight = torch.diag(torch.linspace(1.7, 0.5, n))[None].clone()
    projector = SpectralProjection(torch.tensor([1.8]))
    projector.project_(weight)
    weight[0, -1, -1] = 1.9  # orthogonal to everything tracked
    before = weight.clone()
    report = projector.project_(weight, torch.tensor([1.4]))
    check(before, weight, report, (1.8,))
    assert report.saturated.tolist() == [1]


def test_a_long_step_does_not_drown_the_values_near_the_bound(ways):
    """As in training at delta = 1.4: the step makes one value five times the bound, forty others lie below it."""
    generator = torch.Generator().manual_seed(0)
    n, bound = 96, 0.6
    u, v = (torch.linalg.qr(torch.randn(n, n, generator=generator)).Q for _ in range(2))
    near = torch.linspace(0.93, 0.7, 40)
    s = torch.cat([torch.full((3,), 1.2), near, torch.full((n - 43,), 0.3)]) * bound
    weight = ((u * s) @ v.T)[None].contiguous()
    projector = SpectralProjection(torch.tensor([bound]))
    projector.project_(weight)
    gave_up = ways["gave up"]
    for _ in range(5):
        update = torch.outer(torch.randn(n, generator=generator), torch.randn(n, generator=generator))
        update *= 5 * bound / update.norm()
        weight += update
        before = weight.clone()
        report = projector.project_(weight, update.norm()[None])
        check(before, weight, report, (bound,))
    assert ways["gave up"] <= gave_up + 1  # once at times, as rounding has it


@pytest.mark.parametrize(("count", "n"), [(100, 12), (1, 650), (1, 1500)])
def test_many_and_large(count, n):
    """The nearest matrix within the bound is the only one within it at that distance."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(count, n, n, generator=generator) * n**-0.5  # sigma_1 about 2
    before = weight.clone()
    SpectralProjection(torch.full((count,), 1.8)).project_(weight)
    excess = (torch.linalg.svdvals(before.double()) - 1.8).clamp_min(0).norm(dim=1)
    distance = (weight.double() - before.double()).flatten(1).norm(dim=1)
    assert (distance <= excess + 1e-5 * before.flatten(1).norm(dim=1)).all()
    assert (torch.linalg.svdvals(weight.double())[:, 0] <= 1.8 * (1 + 1e-6)).all()


def test_float64_and_bfloat16():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 30, 30, generator=generator, dtype=torch.float64)
    low = weight.bfloat16()
    before = weight.clone()
    check(before, weight, SpectralProjection(torch.tensor([1.8])).project_(weight), (1.8,))
    SpectralProjection(torch.tensor([1.8])).project_(low)
    assert torch.linalg.svdvals(low.double())[0, 0] <= 1.8 * (1 + 2**-8)  # as exact as its entries


def test_a_basis_that_is_a_little_off_is_improved_before_it_is_used():
    """Few values and a small norm: here the coupling that the bound tolerates would show in the result."""
    generator = torch.Generator().manual_seed(0)
    n, bound = 40, 1.8
    u, v = (torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q for _ in range(2))
    s = torch.full((n,), 0.01, dtype=torch.float64)
    s[0] = 2.5
    weight = ((u * s) @ v.T).float()
    tilted = torch.linalg.qr(v[:, :5] + 3e-4 * v[:, 5:10]).Q.mT.float()
    few = subspace.clip_few(subspace.Search(weight, tilted, bound, None, float(weight.norm())))
    want = (u * s.clamp_max(bound)) @ v.T
    assert (few.weight - want).norm() <= 1e-5 * want.norm()


def test_what_is_claimed_of_the_rest_is_true():
    """The tracked value fell below the old level and another one, not tracked, rose: there are two of them now."""
    n = 40
    diagonal = torch.full((n,), 0.1)
    diagonal[0], diagonal[-1] = 0.9, 0.95
    basis = torch.eye(n)[:3].contiguous()
    known = subspace.Above(1, 1.0)  # true: none is above 1
    few = subspace.clip_few(subspace.Search(torch.diag(diagonal), basis, 1.8, known, float(diagonal.norm())))
    assert few is None or (diagonal > few.known.level).sum() <= few.known.number
