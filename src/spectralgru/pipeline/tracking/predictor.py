"""The registered models that `mlflow.pyfunc.load_model` loads; they predict the next word or the next notes.

A model is a folder: `run.json`, `model.safetensors` and `names.json`, which says what its outputs mean.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from spectralgru.errors import InputError
from spectralgru.pipeline.sampling.text import decode, tokens
from spectralgru.pipeline.saved import load_model
from spectralgru.training.data.dataset import UNK, Corpus, Words
from spectralgru.training.models import ReplicatedModel

CHUNK = 100  # steps to compute at once, which limits the memory for logits
NAMES = "names.json"


def names(corpus: Corpus) -> dict[str, Any]:
    """The meaning of the outputs of a model of this corpus."""
    if isinstance(corpus, Words):
        return {"vocabulary": corpus.vocabulary, "separator": corpus.separator}
    return {"lowest": corpus.lowest}


class NextWord:
    """Reads texts; returns the most probable next word of each, and how well the text itself was predicted."""

    def __init__(self, model: ReplicatedModel, vocabulary: Sequence[str], separator: str = " ") -> None:
        self.model, self.vocabulary, self.separator = model, list(vocabulary), separator
        self.ids = {word: i for i, word in enumerate(self.vocabulary)}

    def predict(self, texts: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Columns `next_word`, `probability`, and `nats` over the `predicted` words that follow the first.

        `texts` has the column `text`: words separated by spaces, or characters, as in the corpus; the end of a line
        counts as `<eos>`, an unknown word as `<unk>`. exp(sum of nats / sum of predicted) is the perplexity.
        """
        return pd.DataFrame([self._read(text) for text in texts["text"]])

    def _read(self, text: str) -> dict[str, Any]:
        words = tokens(text, self.separator)
        unknown = [word for word in words if word not in self.ids] if UNK not in self.ids else []
        if not words or unknown:
            raise InputError(f"text {text[:40]!r}: {unknown[:3] or 'empty'}; give words of the vocabulary")
        ids = torch.tensor([self.ids.get(word, self.ids.get(UNK, 0)) for word in words])
        nats, last = 0.0, torch.empty(0)
        for at, log_p in _chunks(self.model, ids.view(-1, 1)):
            log_p = log_p.double().log_softmax(-1)
            targets = ids[at + 1 : at + 1 + len(log_p)]
            nats -= float(log_p[: len(targets)].gather(1, targets.view(-1, 1)).sum())
            last = log_p[-1]
        best = int(last.argmax())
        return {
            "next_word": self.vocabulary[best],
            "probability": float(last[best].exp()),
            "nats": nats,
            "predicted": len(words) - 1,
        }


class NextNotes:
    """Reads tunes; returns the most probable next notes of each, and how well the tune itself was predicted."""

    def __init__(self, model: ReplicatedModel, lowest: int) -> None:
        self.model, self.lowest = model, lowest
        self.size = model.output["bias"].shape[1]

    def predict(self, tunes: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Columns `next_notes` (MIDI numbers more probable than not), and `nats` over the tune's `steps`.

        `tunes` has the column `tune`: one text for each tune, its time steps separated by `|`, a step's MIDI numbers by
        spaces: `60 64 67 | 60 64 67 | | 62`. sum of nats / sum of steps is the negative log-likelihood.
        """
        return pd.DataFrame([self._read(tune) for tune in tunes["tune"]])

    def _read(self, tune: str) -> dict[str, Any]:
        roll = torch.zeros(1 + tune.count("|") + 1, 1, self.size)  # silence before the first step
        for at, step in enumerate(tune.split("|"), 1):
            for word in step.split():
                if not word.isdecimal() or not 0 <= int(word) - self.lowest < self.size:
                    allowed = f"{self.lowest} to {self.lowest + self.size - 1}"
                    raise InputError(f"note {word!r} in step {at}: a MIDI number from {allowed} is needed")
                roll[at, 0, int(word) - self.lowest] = 1
        nats, last = 0.0, torch.empty(0)
        for at, logits in _chunks(self.model, roll):
            targets = roll[at + 1 : at + 1 + len(logits), 0]
            losses = torch.nn.functional.binary_cross_entropy_with_logits(
                logits[: len(targets)].double(), targets.double(), reduction="sum"
            )
            nats += float(losses)
            last = logits[-1]
        notes = self.lowest + np.flatnonzero((last > 0).numpy())
        return {"next_notes": " ".join(map(str, notes)), "nats": nats, "steps": len(roll) - 1}


@torch.no_grad()
def _chunks(model: ReplicatedModel, inputs: Tensor) -> Any:
    """The start of each chunk of `inputs` [T, 1, ...], and the logits [t, V] after each of its steps."""
    state = model.initial_state(1)
    for at in range(0, len(inputs), CHUNK):
        chunk = inputs[at : at + CHUNK]
        x, state = model(chunk if model.kind == "words" else chunk.unsqueeze(0), state)
        yield at, model.logits(x)[0, :, 0]


def text_of(corpus: Corpus, steps: Any) -> str:
    """Steps of a corpus (ids [T], or notes [T, V]) as text for `predict`."""
    if isinstance(corpus, Words):
        return decode(steps, corpus.vocabulary, corpus.separator)
    return " | ".join(" ".join(str(corpus.lowest + i) for i in np.flatnonzero(step)) for step in steps)


def _load_pyfunc(folder: str) -> NextWord | NextNotes:
    """Entry point for MLflow."""
    _, model = load_model(Path(folder))
    described = json.loads((Path(folder) / NAMES).read_text(encoding="utf-8"))
    return NextWord(model, **described) if model.kind == "words" else NextNotes(model, **described)
