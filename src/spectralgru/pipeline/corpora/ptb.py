"""Penn Treebank in Mikolov's preprocessing: a sentence per line, words separated by spaces (LDC99T42, research use)."""

import ast
import warnings
from importlib.resources.abc import Traversable
from pathlib import Path

from spectralgru.pipeline.corpora import text
from spectralgru.pipeline.corpora.contents import Contents
from spectralgru.training.data.dataset import SPLITS


def from_package(root: Traversable, name: str) -> bytes:
    """`ptb.<split>.txt` from the package `treebank`, whose module assigns the texts: `penn[split] = ...`.

    The module is parsed, not run. Raises ValueError if the text is not in it.
    """
    split = name.split(".")[1]
    # The texts contain "\\/", which Python reports as a bad escape.
    with warnings.catch_warnings(action="ignore"):
        module = ast.parse((root / "__init__.py").read_bytes())
    for statement in module.body:
        match statement:
            case ast.Assign(
                targets=[ast.Subscript(value=ast.Name(id="penn"), slice=ast.Constant(value=key))],
                value=ast.Constant(value=str(content)),
            ) if key == split:
                # In the package the train text ends with a newline more than the original file.
                return (content.removesuffix("\n") if split == "train" else content).encode()
    raise ValueError(f"no penn[{split!r}] in the package")


def read(folder: Path) -> Contents:
    """The three files in `folder`. Raises InputError for one that is missing, empty or not UTF-8."""
    remedy = "delete it and fetch it again (`spectralgru fetch --corpus ptb`)"
    return text.contents({split: text.read_lines(folder / f"ptb.{split}.txt", remedy) for split in SPLITS})
