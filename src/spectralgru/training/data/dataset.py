"""Prepared corpora as arrays. The trainer reads its data with this, so it needs numpy and the standard library only."""

import hashlib
import json
import math
import reprlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from spectralgru.errors import InputError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

EOS = "<eos>"
UNK = "<unk>"


@dataclass(frozen=True, eq=False)
class Words:
    """A text corpus: token ids, with `<eos>` at the end of each line.

    Attributes:
        name: of the corpus.
        sha256: of the prepared .npz.
        train: int32 [tokens].
        valid: the same.
        test: the same.
        vocabulary: `vocabulary[id]` is the word.
        separator: between two words of a line; empty if the tokens are characters.
    """

    kind: ClassVar[Literal["words"]] = "words"

    name: str
    sha256: str
    train: npt.NDArray[np.int32]
    valid: npt.NDArray[np.int32]
    test: npt.NDArray[np.int32]
    vocabulary: list[str]
    separator: str = " "

    def split(self, split: Split) -> npt.NDArray[np.int32]:
        """Token ids of a split, int32 [tokens].

        Args:
            split: "train", "valid" or "test".
        """
        return {"train": self.train, "valid": self.valid, "test": self.test}[split]


@dataclass(frozen=True, eq=False)
class Notes:
    """A music corpus: piano rolls, with the tunes of a split laid end to end.

    Attributes:
        name: of the corpus.
        sha256: of the prepared .npz.
        train: uint8 [steps, notes], 0 or 1.
        valid: the same.
        test: the same.
        train_lengths: int32 [tunes], steps of each tune; they add up to the split's steps.
        valid_lengths: the same.
        test_lengths: the same.
        lowest: MIDI number of column 0.
        step: length of a row in quarter notes.
        tempo: quarter notes per minute.
    """

    kind: ClassVar[Literal["notes"]] = "notes"

    name: str
    sha256: str
    train: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.uint8]
    test: npt.NDArray[np.uint8]
    train_lengths: npt.NDArray[np.int32]
    valid_lengths: npt.NDArray[np.int32]
    test_lengths: npt.NDArray[np.int32]
    lowest: int
    step: Fraction = Fraction(1, 2)
    tempo: float = 120.0

    def split(self, split: Split) -> npt.NDArray[np.uint8]:
        """All steps of a split, uint8 [steps, notes].

        Args:
            split: "train", "valid" or "test".
        """
        return {"train": self.train, "valid": self.valid, "test": self.test}[split]

    def lengths(self, split: Split) -> npt.NDArray[np.int32]:
        """Number of steps of each tune in a split, int32 [tunes].

        Args:
            split: "train", "valid" or "test".
        """
        return {"train": self.train_lengths, "valid": self.valid_lengths, "test": self.test_lengths}[split]

    def tunes(self, split: Split) -> list[npt.NDArray[np.uint8]]:
        """The tunes of a split in their order, as views [steps, notes].

        Args:
            split: "train", "valid" or "test".
        """
        return np.split(self.split(split), np.cumsum(self.lengths(split))[:-1])


Corpus = Words | Notes


def load(corpus_npz: Path | str) -> Corpus:
    """Read a prepared corpus.

    Args:
        corpus_npz: path of `<corpus>.npz`; `<corpus>.json` is beside it.

    Raises:
        InputError: one of them is missing or unreadable, or they were not written together.
    """
    path = Path(corpus_npz)
    name = path.stem
    remedy = f"run `spectralgru prepare --corpus {name}`"
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file; {remedy}") from None
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); {remedy}") from None
    except ValueError as error:
        raise InputError(
            f"{path.with_suffix('.json')}: not a corpus record ({error}); delete it and {remedy}"
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    if not isinstance(record, dict) or record.get("sha256") != digest:
        raise InputError(
            f"{path}: damaged, or not the file {name}.json was written with (SHA-256 found {digest}); "
            f"delete both and {remedy}"
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _corpus(record, digest, {key: arrays[key] for key in arrays.files})
    except (LookupError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: not a prepared corpus, or {name}.json not its record ({error!r}); delete both and {remedy}"
        ) from None


def _corpus(record: Mapping[str, Any], sha256: str, arrays: dict[str, npt.NDArray[Any]]) -> Corpus:
    """The corpus in a record and its arrays. Raises LookupError, TypeError or ValueError if they make none."""
    if not isinstance(name := record["corpus"], str):
        raise TypeError(f"the name is {reprlib.repr(name)}")
    if record["kind"] == Words.kind:
        vocabulary = record["vocabulary"]
        if not isinstance(vocabulary, list) or not all(isinstance(word, str) for word in vocabulary):
            raise TypeError("the vocabulary is no list of words")
        for split in SPLITS:
            ids = arrays[split]
            if ids.dtype != np.int32 or ids.ndim != 1 or not ids.size:
                raise ValueError(f"{split} is not a row of token ids")
            if not 0 <= ids.min() <= ids.max() < len(vocabulary):
                raise ValueError(f"{split} has token ids outside the vocabulary of {len(vocabulary)} words")
        if (separator := record.get("separator", " ")) not in ("", " "):
            raise ValueError(f"the separator is {reprlib.repr(separator)}")
        return Words(name, sha256, **arrays, vocabulary=vocabulary, separator=separator)
    if record["kind"] != Notes.kind:
        raise ValueError(f"the kind is {reprlib.repr(record['kind'])}")
    if type(lowest := record["lowest"]) is not int or not 0 <= lowest < 128:
        raise ValueError(f"the lowest note is {reprlib.repr(lowest)}")
    for split in SPLITS:
        rolls, lengths = arrays[split], arrays[f"{split}_lengths"]
        if rolls.dtype != np.uint8 or rolls.ndim != 2 or rolls.shape[1] != arrays["train"].shape[1]:
            raise ValueError(f"{split} is no piano roll")
        if lengths.ndim != 1 or lengths.min(initial=1) < 1 or lengths.sum() != len(rolls):
            raise ValueError(f"the lengths of {split} do not add up to its steps")
    step, tempo = Fraction(record.get("step", "1/2")), float(record.get("tempo", 120))
    if step <= 0 or not 0 < tempo < math.inf:
        raise ValueError(f"the step is {step}, the tempo {tempo}")
    return Notes(name, sha256, **arrays, lowest=lowest, step=step, tempo=tempo)
