"""A sample from a run: a continued tune or text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spectralgru.errors import InputError, RunError
from spectralgru.pipeline.sampling.continuation import continue_notes, continue_words
from spectralgru.pipeline.sampling.text import decode, encode
from spectralgru.pipeline.sampling.trained import Trained
from spectralgru.training.data.dataset import Notes, Split, Words

if TYPE_CHECKING:  # mido is needed for music only
    from spectralgru.pipeline.sampling.music import Timing

NOTE_STEPS, TOKENS = 64, 60  # to sample by default
LONGEST_SOUND = 20  # minutes


@dataclass(frozen=True)
class Tune:
    """A piano roll; the rows from `begins` on continue the earlier ones."""

    name: str
    roll: npt.NDArray[np.uint8]  # [steps, notes]
    begins: int
    lowest: int  # MIDI number of column 0
    timing: "Timing"

    def midi(self) -> bytes:
        """The tune as a MIDI file."""
        from spectralgru.pipeline.sampling.music import to_midi

        return to_midi(self.roll, self.lowest, self.timing, self.name, self.begins)

    def mp3(self) -> bytes:
        """The tune as sound. Raises InputError if it is too long for the memory."""
        from spectralgru.pipeline.sampling.audio import to_mp3

        minutes = self.timing.seconds(len(self.roll)) / 60
        if minutes > LONGEST_SOUND:
            raise InputError(
                f"{self.name}: {minutes:.0f} minutes long, and at most {LONGEST_SOUND} are turned into sound; "
                "sample fewer steps (--steps)"
            )
        return to_mp3(self.midi())


@dataclass(frozen=True)
class Text:
    """Token ids; those from `begins` on continue the earlier ones. The first is `<eos>`: a sentence begins."""

    ids: Sequence[int]
    begins: int
    vocabulary: Sequence[str]
    separator: str = " "

    def __str__(self) -> str:
        return decode(self.ids[1:], self.vocabulary, self.separator)

    @property
    def prompt(self) -> str:
        """What was given."""
        return decode(self.ids[1 : self.begins], self.vocabulary, self.separator)

    @property
    def continuation(self) -> str:
        """What was sampled."""
        return decode(self.ids[self.begins :], self.vocabulary, self.separator)


def sample(
    trained: Trained,
    split: Split,
    tune: int | None,
    prompt: str | None,
    steps: int | None,
    temperature: float,
    seed: int,
) -> Tune | Text:
    """Continue a tune (by default the first of the split) or a text (by default a new sentence), depending on the run.

    Raises InputError if both `tune` and `prompt` are given, and where `sample_tune` or `sample_text` do.
    """
    wants_tune = tune is not None or (prompt is None and isinstance(trained.corpus, Notes))
    if wants_tune and prompt is not None:
        raise InputError(
            f"tune {tune} and prompt {prompt!r}: give one of the two; a run knows either tunes or words"
        )
    if wants_tune:
        return sample_tune(
            trained, split, tune or 0, NOTE_STEPS if steps is None else steps, temperature, seed
        )
    return sample_text(trained, prompt or "", TOKENS if steps is None else steps, temperature, seed)


def original(trained: Trained, split: Split, number: int, steps: int) -> Tune:
    """The first bars of a tune, at most half of it, and its next `steps` steps; `number` counts from 0 in the split.

    Raises InputError for a word model or an unknown tune, RunError if mido is not installed.
    """
    corpus = trained.corpus
    if not isinstance(corpus, Notes):
        raise InputError(f"tune {number}: {corpus.name} has words, not tunes; give --prompt instead")
    count = len(corpus.lengths(split))
    if not 0 <= number < count:
        raise InputError(f"tune {number}: {corpus.name} has tunes 0 to {count - 1} in {split}")
    try:
        from spectralgru.pipeline.sampling.music import timing_of
    except ModuleNotFoundError:
        raise RunError("writing tunes needs mido, which is not installed; pip install mido") from None
    roll, timing = corpus.tunes(split)[number], timing_of(corpus)
    begins = max(1, min(timing.beginning, len(roll) // 2))
    return Tune(f"{corpus.name} {split} {number}", roll[: begins + steps], begins, corpus.lowest, timing)


def sample_tune(
    trained: Trained, split: Split, number: int, steps: int, temperature: float, seed: int
) -> Tune:
    """The first bars of a tune, as in `original`, and `steps` sampled steps.

    Raises InputError where `original` or `continue_notes` do.
    """
    given, run = original(trained, split, number, 0), trained.run
    rng = np.random.default_rng(seed)
    sampled = continue_notes(trained.model, given.roll, steps, temperature, rng)
    name = f"{given.name}, {run.setting} seed {run.seed}"
    return Tune(name, np.concatenate([given.roll, sampled]), given.begins, given.lowest, given.timing)


def sample_text(trained: Trained, prompt: str, steps: int, temperature: float, seed: int) -> Text:
    """The prompt as the beginning of a sentence, and `steps` sampled tokens.

    Raises InputError for a music model, for a word that it does not know, and where `continue_words` does.
    """
    corpus = trained.corpus
    if not isinstance(corpus, Words):
        raise InputError(f"prompt {prompt!r}: {corpus.name} has tunes, not words; give --tune instead")
    given = encode(prompt, corpus.vocabulary, corpus.separator)
    sampled = continue_words(trained.model, given, steps, temperature, np.random.default_rng(seed))
    return Text(given + sampled, len(given), corpus.vocabulary, corpus.separator)
