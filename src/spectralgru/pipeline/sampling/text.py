"""Text to token ids and back, for models of words."""

from collections.abc import Iterable, Sequence

from spectralgru.errors import InputError
from spectralgru.training.data.dataset import EOS, UNK


def tokens(text: str, separator: str) -> list[str]:
    """The words of a text, or its characters if `separator` is empty; a line's end is an `<eos>`."""
    lines = (line.split() if separator else [*line] for line in text.split("\n"))
    return [token for line in lines for token in (*line, EOS)][:-1]


def encode(text: str, vocabulary: Sequence[str], separator: str = " ") -> list[int]:
    """Ids of the words of `text` after an `<eos>`, since it begins a sentence. A line's end is an `<eos>`, too.

    Raises InputError for a word outside the vocabulary. It does not silently become `<unk>`: the model should read what
    was typed.
    """
    ids = {word: i for i, word in enumerate(vocabulary)}
    words = tokens(text, separator)
    for word in words:
        if word not in ids:
            meant = f"write {word.lower()!r}" if word.lower() in ids else "choose another word"
            unknown = f", or {UNK} for it" if UNK in ids else ""
            raise InputError(
                f"prompt: {word!r} is not among the {len(ids):,} words that the model knows; {meant}{unknown}"
            )
    return [ids[word] for word in (EOS, *words)]


def decode(ids: Iterable[int], vocabulary: Sequence[str], separator: str = " ") -> str:
    """The words of `ids`, separated as in the corpus, with a line break for `<eos>`."""
    lines = separator.join(vocabulary[i] for i in ids).split(EOS)
    return "\n".join(line.strip() if separator else line for line in lines)
