"""A user's own corpora, as defined under `own` in params.yaml: a folder of MIDI files, or a text."""

import hashlib
import math
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from spectralgru.errors import InputError
from spectralgru.files import sha256
from spectralgru.pipeline.corpora import CORPORA, Kind, folder
from spectralgru.pipeline.corpora.contents import Contents
from spectralgru.pipeline.corpora.text import Unit, contents, divided, read_lines
from spectralgru.training.data.dataset import SPLITS

Raw = dict[str, dict[str, str]]  # for each source, its SHA-256 and where it comes from
SUFFIXES = (".mid", ".midi", ".kar", ".rmi", ".smf")
APPLE_DOUBLE = "._"  # prefix of the files that macOS puts beside others
FINEST = 64  # steps in a quarter note
SHARES = [0.8, 0.1, 0.1]  # of train, valid and test


def _free(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,39}", name):
        raise ValueError(
            "not a corpus name: it must be a letter and at most 39 letters, digits or _ after it"
        )
    if name.lower() in CORPORA:
        raise ValueError("the name of a corpus that comes with the project; choose another")
    if name.lower() in CORPORA.values():
        raise ValueError("the name of a kind of corpus; choose another")
    return name


def _told_apart(own: dict[str, Any]) -> dict[str, Any]:
    if len({name.lower() for name in own}) < len(own):
        raise ValueError("names must differ in more than upper and lower case")
    return own


Name = Annotated[str, AfterValidator(_free)]


def _step(value: object) -> str:
    if isinstance(value, bool | float) or not re.fullmatch(r"[1-9]\d?(/[1-9]\d?)?", str(value)):
        raise ValueError(f"must be a fraction of a quarter note, 1/{FINEST} to 4, for example 1/2")
    step = Fraction(str(value))
    if step > 4 or step.denominator > FINEST:
        raise ValueError(f"must be from 1/{FINEST} to 4 quarter notes")
    return str(step)


def _of_one(shares: list[float]) -> list[float]:
    if not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError("must add up to 1")
    return shares


def _place(path: str) -> str:
    if not path or "\0" in path:
        raise ValueError("no path")
    return path


def _files(value: object) -> object:
    three = isinstance(value, dict) and sorted(value) == sorted(SPLITS) and [*value.values()]
    if not value or not all(isinstance(path, str) for path in three or [value]):
        raise ValueError("must be a file, or three: {train: a.txt, valid: b.txt, test: c.txt}")
    for path in three or [value]:
        _place(path)
    return value


Share = Annotated[float, Field(gt=0, lt=1)]
Split = Annotated[
    list[Share],
    Field(min_length=3, max_length=3, description="shares of train, valid and test"),
    AfterValidator(_of_one),
]


class _Own(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: ClassVar[Kind]
    licence: ClassVar[str] = "not stated (the user's own)"

    def is_of(self, record: dict[str, Any]) -> bool:
        """Whether a record was made from this definition and, if they still exist, from these files as they are."""
        if record.get("own") != self.model_dump(mode="json"):
            return False
        return not self._is_there() or bool(record["raw"] == self.raw())

    def _is_there(self) -> bool:
        raise NotImplementedError

    def raw(self) -> Raw:
        """SHA-256 and place of each source. Raises InputError if one is missing."""
        raise NotImplementedError

    def read(self) -> Contents:
        """The contents of the corpus. Raises InputError if the sources make no corpus."""
        raise NotImplementedError


class MidiFolder(_Own):
    """A folder of MIDI files, searched recursively."""

    kind: ClassVar[Kind] = "notes"

    midi: Annotated[str, AfterValidator(_place)] = Field(description="the folder")
    step: Annotated[str, BeforeValidator(_step)] = Field(
        "1/2", description="quarter notes in a row of the roll"
    )
    drums: bool = Field(False, description="keep channel 10, whose notes stand for instruments")
    any_key: bool = Field(False, description="pieces that differ only in key count as identical")
    split: Split = SHARES
    seed: int = Field(0, ge=0, lt=2**31, description="of the split")
    may_skip: float = Field(0.1, ge=0, le=1, description="share of files that may be unreadable")

    def files(self) -> list[str]:
        """The MIDI files, relative to the folder, in order. Raises InputError if there are none."""
        root, found = Path(self.midi), []

        def refuse(error: OSError) -> None:
            raise InputError(
                f"{error.filename}: cannot be searched ({error.strerror}); name a folder of MIDI files"
            )

        for place, _, names in os.walk(root, onerror=refuse):
            midi = (n for n in names if n.lower().endswith(SUFFIXES) and not n.startswith(APPLE_DOUBLE))
            found += [Path(place, name).relative_to(root).as_posix() for name in midi]
        if not found:
            raise InputError(
                f"{root}: no MIDI files in it ({', '.join(SUFFIXES)}); name the folder that holds them"
            )
        return sorted(found)

    def _is_there(self) -> bool:
        return Path(self.midi).exists()

    def raw(self) -> Raw:
        """A single hash for the names and contents of all files."""
        files, digest = self.files(), hashlib.sha256()
        for name in files:
            path = Path(self.midi, name)
            try:
                content = sha256(path) if path.is_file() else "no file"
            except OSError as error:
                content = str(error.strerror)
            digest.update(os.fsencode(f"{name}\0{content}\n"))
        return {self.midi: {"sha256": digest.hexdigest(), "source": f"{len(files)} MIDI files"}}

    def read(self) -> Contents:
        """Piano rolls of all pieces."""
        return folder.contents(
            Path(self.midi),
            self.files(),
            Fraction(self.step),
            self.drums,
            self.any_key,
            self.split,
            self.seed,
            self.may_skip,
        )


class Text(_Own):
    """A text in one file or three."""

    kind: ClassVar[Kind] = "words"

    text: Annotated[str | dict[str, str], BeforeValidator(_files)] = Field(
        description="a file, or one for each split"
    )
    unit: Unit = Field("word", description="words by white space, or characters")
    vocabulary: int | None = Field(
        None, ge=3, lt=2**31, description="the most frequent words that are kept; null: all"
    )
    split: Split | None = Field(
        None, description="of one file: shares of its lines, in order; null: 0.8, 0.1, 0.1"
    )

    @model_validator(mode="after")
    def _split_is_of_one_file(self) -> "Text":
        if self.split and not isinstance(self.text, str):
            raise ValueError("split is for a text in one file; take it out")
        return self

    def _paths(self) -> dict[str, str]:
        return {"all": self.text} if isinstance(self.text, str) else self.text

    def _is_there(self) -> bool:
        return all(Path(path).exists() for path in self._paths().values())

    def raw(self) -> Raw:
        """The hash of each file. Raises InputError also for a text given twice, which would make scores meaningless."""
        raw: Raw = {}
        splits: dict[str, str] = {}  # by hash
        for split, path in self._paths().items():
            try:
                if not Path(path).is_file():
                    raise InputError(
                        f"{path}: {'not a file' if Path(path).exists() else 'no such file'}; name a text"
                    )
                raw[path] = {"sha256": (digest := sha256(path)), "source": "a text"}
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror}); name a text") from None
            if (other := splits.setdefault(digest, split)) != split:
                raise InputError(f"{path}: {split} is the same text as {other}; give each its own")
        return raw

    def read(self) -> Contents:
        """Token ids and vocabulary."""
        lines: dict[str, Any] = {
            split: read_lines(Path(path), "give a text in UTF-8") for split, path in self._paths().items()
        }
        if isinstance(self.text, str):
            lines = divided(lines["all"], self.split or SHARES, self.text)
        return contents(lines, self.unit, self.vocabulary)


def _form(value: Any) -> str | None:
    """Which of the two forms a definition has."""
    keys = value if isinstance(value, dict) else getattr(type(value), "model_fields", ())
    return next((form for form in ("midi", "text") if form in keys), None)


Own = MidiFolder | Text
Definition = Annotated[
    Annotated[MidiFolder, Tag("midi")] | Annotated[Text, Tag("text")],
    Discriminator(
        _form,
        custom_error_type="no_corpus",
        custom_error_message="must have midi: a folder, or text: a file or three",
    ),
]
Definitions = Annotated[dict[Name, Definition], AfterValidator(_told_apart)]
