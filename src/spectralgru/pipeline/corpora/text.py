"""Text to token ids: words separated by white space, or characters, with `<eos>` at the end of each line."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from spectralgru.errors import InputError
from spectralgru.pipeline.corpora.contents import Contents, of_words
from spectralgru.training.data.dataset import EOS, SPLITS, Words
from spectralgru.training.data.subset import subset_words

Unit = Literal["word", "character"]


def contents(
    lines: Mapping[str, Sequence[str]], unit: Unit = "word", vocabulary: int | None = None
) -> Contents:
    """Token ids of the lines of each split, and the vocabulary.

    The vocabulary is that of train, or its `vocabulary` most frequent words, always with `<eos>` and `<unk>`; ties go
    to the word that appears first. Every other word becomes `<unk>`. Ids follow the first appearance in train.
    """
    ids: dict[str, int] = {}
    train, valid, test = (
        np.fromiter((ids.setdefault(token, len(ids)) for token in _tokens(lines[split], unit)), np.int32)
        for split in SPLITS
    )
    words = subset_words(Words("", "", train, valid, test, list(ids)), vocabulary_size=vocabulary)
    arrays: dict[str, npt.NDArray[np.int32]] = {split: words.split(split) for split in SPLITS}
    return of_words(arrays, words.vocabulary, " " if unit == "word" else "")


def _tokens(lines: Sequence[str], unit: Unit) -> Iterator[str]:
    for line in lines:
        yield from line.split() if unit == "word" else line
        yield EOS


def read_lines(path: Path, remedy: str) -> list[str]:
    """The lines of a file, with any line ends. Raises InputError if it is missing, empty or not UTF-8."""
    try:
        if not path.is_file():
            raise InputError(f"{path}: {'not a file' if path.exists() else 'no such file'}; {remedy}")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except UnicodeDecodeError as error:
        where = f"byte {error.object[error.start]:#04x} at offset {error.start}"
        raise InputError(f"{path}: not UTF-8 ({where}); {remedy}") from None
    if "\0" in text:
        raise InputError(f"{path}: holds the character NUL, as UTF-16 and binary files do; {remedy}")
    if not text.strip():
        raise InputError(f"{path}: empty; {remedy}")
    return text.removesuffix("\n").split("\n")


def divided(lines: Sequence[str], shares: Sequence[float], name: str) -> dict[str, Sequence[str]]:
    """The lines in three parts, in order. Raises InputError, which names the file `name`, if a part is empty."""
    ends = [round(share * len(lines)) for share in accumulate(shares)]
    parts: dict[str, Sequence[str]] = {
        split: lines[a:b] for split, a, b in zip(SPLITS, [0, *ends], [*ends[:2], len(lines)], strict=False)
    }
    for split, part in parts.items():
        if not any(line.strip() for line in part):
            raise InputError(
                f"{name}: {split} would have no word ({len(lines)} lines in shares of {list(shares)}); "
                "change split, or give three files"
            )
    return parts
