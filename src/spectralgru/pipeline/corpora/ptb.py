"""Penn Treebank, Mikolov's preprocessing: a sentence a line, words separated by spaces (LDC99T42, research use)."""

import ast
import warnings
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spectralgru.errors import InputError
from spectralgru.training.data.dataset import EOS, SPLITS


def from_package(root: Traversable, name: str) -> bytes:
    """`ptb.<split>.txt` from the package `treebank`, whose module assigns the texts: `penn[split] = ...`.

    The module is parsed, not run. Raises ValueError if the text is not in it.
    """
    split = name.split(".")[1]
    # The texts have "\\/", which Python treats as a bad escape.
    with warnings.catch_warnings(action="ignore"):
        module = ast.parse((root / "__init__.py").read_bytes())
    for statement in module.body:
        match statement:
            case ast.Assign(
                targets=[ast.Subscript(value=ast.Name(id="penn"), slice=ast.Constant(value=key))],
                value=ast.Constant(value=str(text)),
            ) if key == split:
                # In the package the train text ends with one more newline than the original file.
                return (text.removesuffix("\n") if split == "train" else text).encode()
    raise ValueError(f"no penn[{split!r}] in the package")


def read(folder: Path) -> tuple[dict[str, npt.NDArray[np.int32]], list[str]]:
    """Token ids of the three files in `folder` (int32 [tokens], `<eos>` at the end of each line), and the vocabulary.

    Ids follow the first appearance in train. Raises InputError for a file that is missing, empty or not UTF-8, and for
    a word that train does not have.
    """
    ids: dict[str, int] = {}
    for word in _words(folder / "ptb.train.txt"):
        ids.setdefault(word, len(ids))
    return {split: _encode(folder / f"ptb.{split}.txt", ids) for split in SPLITS}, list(ids)


def _words(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run `spectralgru fetch --corpus ptb`") from None
    except UnicodeDecodeError as error:
        where = f"byte {error.object[error.start]:#04x} at offset {error.start}"
        raise InputError(f"{path}: not UTF-8 ({where}); delete it and fetch it again") from None
    words = [word for line in text.removesuffix("\n").split("\n") for word in (*line.split(), EOS)]
    if not text.strip():
        raise InputError(f"{path}: empty; delete it and fetch it again")
    return words


def _encode(path: Path, ids: Mapping[str, int]) -> npt.NDArray[np.int32]:
    words = _words(path)
    try:
        return np.array([ids[word] for word in words], dtype=np.int32)
    except KeyError as error:
        line = 1 + words[: words.index(error.args[0])].count(EOS)
        raise InputError(
            f"{path}, line {line}: the word {error.args[0]!r} is not in train; write it as <unk>, or add it to train"
        ) from None
