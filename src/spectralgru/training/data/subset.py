"""Smaller corpora, cut from whole ones by rules that fit in a sentence. numpy only."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spectralgru.errors import InputError
from spectralgru.training.data.dataset import EOS, SPLITS, UNK, Notes, Words


def subset_words(
    words: Words,
    train_tokens: int | None = None,
    valid_tokens: int | None = None,
    test_tokens: int | None = None,
    vocabulary_size: int | None = None,
) -> Words:
    """The first tokens of each split, cut back to the last `<eos>`, over the most frequent words.

    The vocabulary is the `vocabulary_size` most frequent words of the train subset, always with `<eos>` and `<unk>`;
    ties go to the word that appears first. Every other word becomes `<unk>`. Ids follow the first appearance in the
    train subset. None keeps everything.

    Raises InputError for a split shorter than one line, or a vocabulary of fewer than two words.
    """
    if vocabulary_size is not None and vocabulary_size < 2:
        raise InputError(f"vocabulary_size={vocabulary_size}: at least 2 ({EOS} and {UNK})")
    eos = words.vocabulary.index(EOS)
    train = _lines(words.train, train_tokens, eos, "train_tokens")
    valid = _lines(words.valid, valid_tokens, eos, "valid_tokens")
    test = _lines(words.test, test_tokens, eos, "test_tokens")

    counts = Counter(train.tolist())  # among equals, most_common keeps the order of first appearance
    frequent = [i for i, _ in counts.most_common() if words.vocabulary[i] not in (EOS, UNK)]
    kept = {words.vocabulary[i] for i in frequent[: None if vocabulary_size is None else vocabulary_size - 2]}

    # Old id -> new id, in two steps: rare words become <unk>, then ids follow the order of appearance.
    unknown = words.vocabulary.index(UNK) if UNK in words.vocabulary else len(words.vocabulary)
    to_kept = np.array([i if w in kept or w == EOS else unknown for i, w in enumerate(words.vocabulary)])
    order = list(dict.fromkeys([*to_kept[train].tolist(), unknown]))
    new_ids = np.full(len(words.vocabulary) + 1, -1, dtype=np.int32)
    new_ids[order] = np.arange(len(order), dtype=np.int32)
    table = new_ids[to_kept]
    return replace(
        words,
        train=table[train],
        valid=table[valid],
        test=table[test],
        vocabulary=[UNK if i == unknown else words.vocabulary[i] for i in order],
    )


def _lines(ids: npt.NDArray[np.int32], tokens: int | None, eos: int, key: str) -> npt.NDArray[np.int32]:
    if tokens is None:
        return ids
    if tokens < 1:
        raise InputError(f"{key}={tokens}: at least 1")
    ends = np.flatnonzero(ids[:tokens] == eos)
    if len(ends) == 0:
        raise InputError(f"{key}={tokens}: shorter than the first line; ask for more tokens")
    return ids[: ends[-1] + 1]


def subset_tunes(
    notes: Notes,
    train_tunes: int | None = None,
    valid_tunes: int | None = None,
    test_tunes: int | None = None,
) -> Notes:
    """The first tunes of each split; None keeps all. Raises InputError for less than one tune."""
    parts: dict[str, Any] = {}
    for split, tunes in zip(SPLITS, (train_tunes, valid_tunes, test_tunes), strict=True):
        if tunes is not None and tunes < 1:
            raise InputError(f"{split}_tunes={tunes}: at least 1")
        lengths = notes.lengths(split)[:tunes]
        parts |= {split: notes.split(split)[: lengths.sum()], f"{split}_lengths": lengths}
    return replace(notes, **parts)
