"""Prepared corpora as arrays. numpy and the standard library only: the trainer reads its data with this."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
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
    """A text corpus: token ids (int32 [tokens]), `<eos>` at each line's end."""

    kind: ClassVar[Literal["words"]] = "words"

    name: str
    sha256: str  # of the prepared .npz
    train: npt.NDArray[np.int32]
    valid: npt.NDArray[np.int32]
    test: npt.NDArray[np.int32]
    vocabulary: list[str]  # vocabulary[id] is the word

    def split(self, split: Split) -> npt.NDArray[np.int32]:
        """Token ids of a split, int32 [tokens]."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[split]


@dataclass(frozen=True, eq=False)
class Notes:
    """A music corpus: piano rolls (uint8 [steps, notes], 0 or 1), the tunes of a split one after another."""

    kind: ClassVar[Literal["notes"]] = "notes"

    name: str
    sha256: str  # of the prepared .npz
    train: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.uint8]
    test: npt.NDArray[np.uint8]
    train_lengths: npt.NDArray[np.int32]  # [tunes], steps of each tune; they add up to the split's steps
    valid_lengths: npt.NDArray[np.int32]
    test_lengths: npt.NDArray[np.int32]
    lowest: int  # MIDI number of column 0

    def split(self, split: Split) -> npt.NDArray[np.uint8]:
        """All steps of a split, uint8 [steps, notes]."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[split]

    def lengths(self, split: Split) -> npt.NDArray[np.int32]:
        """Steps of each tune of a split, int32 [tunes]."""
        return {"train": self.train_lengths, "valid": self.valid_lengths, "test": self.test_lengths}[split]

    def tunes(self, split: Split) -> list[npt.NDArray[np.uint8]]:
        """The tunes of a split in their order, views of shape [steps, notes]."""
        return np.split(self.split(split), np.cumsum(self.lengths(split))[:-1])


Corpus = Words | Notes


def load(corpus_npz: Path | str) -> Corpus:
    """Read a prepared corpus: `<corpus>.npz` and the `<corpus>.json` beside it.

    Raises InputError if one of them is missing, unreadable, or not the pair that was written together.
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
    found = hashlib.sha256(content).hexdigest()
    if not isinstance(record, dict) or record.get("sha256") != found:
        raise InputError(
            f"{path}: damaged, or not the file {name}.json was written with (SHA-256 found {found}); "
            f"delete both and {remedy}"
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _corpus(record, found, {key: arrays[key] for key in arrays.files})
    except (KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a prepared corpus ({error!r}); delete it and {remedy}") from None


def _corpus(record: Mapping[str, Any], sha256: str, arrays: dict[str, npt.NDArray[Any]]) -> Corpus:
    if record["kind"] == Words.kind:
        return Words(record["corpus"], sha256, **arrays, vocabulary=record["vocabulary"])
    return Notes(record["corpus"], sha256, **arrays, lowest=record["lowest"])
