"""Searches and decompositions in C++: those of PyTorch, and the same bits in any company and in any thread."""

import pytest
import torch

from spectralgru.projection import answers, native
from spectralgru.projection.clip import Whole
from spectralgru.projection.lapack import lapack
from spectralgru.projection.subspace import Above, Search
from spectralgru.recurrent.compiled import library

pytestmark = pytest.mark.skipif(library() is None or lapack() is None, reason="no C++ compiler, or no MKL")


@pytest.fixture(autouse=True)
def _threads():
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


def matrix(n, seed, top=()):
    """A spectrum that falls from 1, with some larger values before it; the exact right singular vectors."""
    generator = torch.Generator().manual_seed(seed)
    u, v = (torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q for _ in range(2))
    sigma = torch.cat([torch.tensor(top, dtype=torch.float64), torch.linspace(1, 0.1, n - len(top)).double()])
    return u, sigma, v


def asked(n, seed=0):
    """What the projection asks for, with a basis that is a little off."""
    u, sigma, v = matrix(n, seed, (2.9, 2.1, 1.9))
    weight, norm = ((u * sigma) @ v.T).float(), float(sigma.norm())
    off = v[:, : min(16, n)] + 1e-2 * torch.randn(
        n, min(16, n), generator=torch.Generator().manual_seed(seed + 1)
    )
    basis = torch.linalg.qr(off).Q.flip(-1).mT.float().contiguous()
    return [
        Search(weight, basis),
        Search(weight, basis, 1.5, None, norm, 0.8),
        Search(weight, basis, 1.5, Above(3, 1.2), norm, 0.8),
        Search(weight, basis, 3.0, None, norm, 0.8),  # nothing is above
        Search(weight, basis, 1.2, None, norm),  # and once more, since 2.9 > 2 c
        Whole(weight, 1.5),
        Whole(weight.double(), 1.5),
    ]


@pytest.mark.parametrize("n", [24, 96, 200])
def test_found_as_by_pytorch_and_within_the_exact_result(n):
    u, sigma, v = matrix(n, 0, (2.9, 2.1, 1.9))
    for one, found in zip(asked(n), native.computed(asked(n)), strict=True):
        want = answers.by_torch(one)
        assert (found is None) == (want is None)
        if isinstance(one, Whole):
            torch.testing.assert_close(found.sigma[0].double(), sigma, rtol=0, atol=2e-4)
            assert found.vectors.shape == want.vectors.shape
        else:
            assert (
                found.saturated == want.saturated == (0 if one.bound is None else (sigma > one.bound).sum())
            )
            torch.testing.assert_close(found.sigma, want.sigma, rtol=1e-4, atol=0, equal_nan=True)
            identity = found.basis.double() @ found.basis.double().T
            torch.testing.assert_close(identity, torch.eye(len(identity)).double(), rtol=0, atol=1e-5)
            if one.bound is not None:
                assert (sigma.clamp_max(one.bound) > found.known.level).sum() <= found.known.number
                assert sigma.clamp_max(one.bound)[0] <= found.largest * (1 + 1e-6)
        if one.bound is not None and found.weight is not None:
            clipped = (u * sigma.clamp_max(one.bound)) @ v.T
            assert (found.weight.double() - clipped).norm() <= 1e-5 * clipped.norm()


@pytest.mark.parametrize("n", [24, 100, 200, 650])
def test_the_same_bits_in_any_company_and_with_any_number_of_threads(n):
    tasks = asked(n) + asked(n, seed=1)[:3]
    expected = [flat(native.computed([one])[0]) for one in tasks]
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for found in (native.computed(tasks), [native.computed([one])[0] for one in tasks]):
            for want, got in zip(expected, map(flat, found), strict=True):
                assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


def flat(found):
    """Its tensors and numbers."""
    parts = [part for part in found if part is not None]
    return [part if isinstance(part, torch.Tensor) else torch.tensor(part).nan_to_num() for part in parts]


def test_what_overflows_is_left_to_pytorch():
    huge = torch.full((8, 8), 1e30)
    assert native.computed([Search(huge, torch.eye(8)[:4].contiguous())]) == [None]
    (found,) = answers._answers([Search(huge, torch.eye(8)[:4].contiguous())])
    assert found.sigma == pytest.approx(8e30)
    assert native.computed([Search(huge, torch.eye(8)[:4].contiguous(), 1.0, None, 8e30, 0.5)]) == [None]
