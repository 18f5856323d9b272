"""Dropout masks: the numbers of Philox, whatever code draws them."""

import os
from functools import cache

import philox
import pytest
import torch

from spectralgru.recurrent import compiled, dropout

SEEDS = [0, 1, 2**31 - 1, 2**40 + 3, 2**63 - 1]
needs_compiler = pytest.mark.skipif(compiled.library() is None, reason="no C++ compiler")


@pytest.fixture(params=["compiled", "plain"])
def form(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(dropout, "library", lambda: None)
    elif compiled.library() is None:
        pytest.skip("no C++ compiler")


def draw(seeds, drawn, shape, share):
    return dropout.dropout_masks(torch.tensor(seeds), torch.tensor([drawn]), shape, share)


def test_the_oracle_gives_the_generator_s_published_answers():
    """Random123's kat_vectors."""
    for counter, key, words in (
        ("00000000" * 4, "00000000" * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff" * 4, "ffffffff" * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a8885a308d313198a2e03707344", "a4093822299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ):
        counter, key = ([int(text[i : i + 8], 16) for i in range(0, len(text), 8)] for text in (counter, key))
        assert philox.philox(counter, key) == [int(word, 16) for word in words.split()]


@pytest.mark.parametrize("shape", [(1,), (3,), (4,), (61,), (64,), (2, 5, 13), (3, 4, 5, 17)])
@pytest.mark.parametrize("drawn", [0, 7, 2**31, 2**32 + 5])
def test_masks_are_the_generator_s_numbers(shape, drawn, form):
    for share in (0.5, 0.3):
        got = draw(SEEDS, drawn, shape, share)
        want = torch.stack([philox.masks(seed, drawn, shape, share) for seed in SEEDS])
        assert torch.equal(got, want.float())


def test_a_replica_s_masks_are_its_own_and_new_at_every_step(form):
    drawn = torch.zeros(1, dtype=torch.int64)
    first, second = (dropout.dropout_masks(torch.tensor(SEEDS), drawn, (3, 50, 40), 0.7) for _ in range(2))
    assert drawn.item() == 2
    assert torch.equal(second[2:3], draw(SEEDS[2:3], 1, (3, 50, 40), 0.7))
    every = torch.cat([first.flatten(1), second.flatten(1)]).gt(0).float()
    assert (every.mean(1) - 0.7).abs().max() < 0.03
    assert (torch.corrcoef(every) - torch.eye(10)).abs().max() < 0.06
    assert first.unique().tolist() == [0.0, torch.tensor(1 / 0.7).item()]


def test_threads_and_strides_change_no_mask(form):
    seeds, threads = torch.tensor([[seed, 9] for seed in SEEDS])[:, 0], torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        shared = dropout.dropout_masks(seeds, torch.tensor([4]), (20, 301), 0.5)
    finally:
        torch.set_num_threads(threads)
    alone = [draw([seed], 4, (20, 301), 0.5)[0] for seed in SEEDS]
    assert torch.equal(shared, torch.stack(alone))


@needs_compiler
def test_masks_are_the_same_on_every_processor(tmp_path, monkeypatch):
    """With vectors of 16 and 8 numbers, with and without their products, and without a compiler."""
    named = os.environ.get("CXX") or "c++"
    load, widths, masks = compiled._loaded.__wrapped__, [], []
    for compiler in (named, f"{named} -mno-avx512f", f"{named} -mno-avx2 -mno-avx512f", "none"):
        monkeypatch.setenv("CXX", compiler)
        if masks:
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(compiled, "_loaded", cache(load))
        masks.append(draw([5, 2**40 + 3], 3, (3, 7, 20, 33), 0.4))
        loaded = compiled.library()
        widths.append(loaded and loaded.panel_width())
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    assert widths[1:] == [16, 16, None]
