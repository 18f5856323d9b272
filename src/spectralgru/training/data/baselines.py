"""Predictors without memory. A run that does no better than these has diverged. numpy only."""

import numpy as np

from spectralgru.training.data.dataset import Notes, Split, Words


def unigram_loss(words: Words, split: Split) -> float:
    """Cross-entropy in nats per token if every token is predicted from the train frequencies (add-one smoothing)."""
    counts = np.bincount(words.train, minlength=len(words.vocabulary)) + 1.0
    log_p = np.log(counts / counts.sum())
    return float(-log_p[words.split(split)].mean())


def independent_note_loss(notes: Notes, split: Split) -> float:
    """Cross-entropy in nats per step, summed over notes, of independent notes at train rates (add-one smoothing)."""
    rate = (notes.train.sum(axis=0, dtype=np.int64) + 1.0) / (len(notes.train) + 2.0)
    sounding = notes.split(split).mean(axis=0)
    return float(-(sounding * np.log(rate) + (1.0 - sounding) * np.log1p(-rate)).sum())
