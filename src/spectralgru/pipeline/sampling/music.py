"""Piano rolls to MIDI files, in the step and tempo of the corpus."""

import io
from math import lcm
from typing import NamedTuple

import mido
import numpy as np
import numpy.typing as npt

from spectralgru.errors import InputError
from spectralgru.pipeline.corpora.midi import Note
from spectralgru.training.data.dataset import Notes

TICKS_PER_BEAT = 480  # a beat is a quarter note; more if a step is not a whole number of ticks
BARS = 4  # of a tune that are given to the model; a bar counts as four quarter notes


class Timing(NamedTuple):
    """How long a row of a piano roll lasts."""

    step: int  # ticks
    tempo: float  # quarter notes per minute
    ticks_per_beat: int = TICKS_PER_BEAT

    @property
    def beginning(self) -> int:
        """Steps in the first bars."""
        return BARS * 4 * self.ticks_per_beat // self.step

    def seconds(self, steps: int) -> float:
        """How long `steps` rows last."""
        return steps * self.step / self.ticks_per_beat * 60 / self.tempo


def timing_of(corpus: Notes) -> Timing:
    """The step and tempo of a corpus; a step is a whole number of ticks."""
    ticks = lcm(TICKS_PER_BEAT, corpus.step.denominator)
    return Timing(int(corpus.step * ticks), corpus.tempo, ticks)


def sounding(roll: npt.NDArray[np.uint8], lowest: int, step: int) -> list[Note]:
    """The notes of a piano roll [steps, notes], ordered by start, then pitch. A pitch in consecutive steps is one note.

    `lowest`: MIDI number of column 0; `step`: ticks per row, so that times are in ticks.
    """
    edges = np.diff(roll.T.astype(np.int8), prepend=0, append=0)  # [notes, steps + 1]
    pitches, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]  # in the same order: the notes of one pitch do not overlap
    notes = zip(pitches.tolist(), starts.tolist(), ends.tolist(), strict=True)
    return sorted(
        (Note(lowest + pitch, start * step, end * step) for pitch, start, end in notes),
        key=lambda note: (note.start, note.pitch),
    )


def to_midi(
    roll: npt.NDArray[np.uint8], lowest: int, timing: Timing, name: str, sampled_from: int | None = None
) -> bytes:
    """A MIDI file of type 0 for the piano roll `roll` [steps, notes]; the same roll gives the same bytes.

    `corpora.midi` and `corpora.pianoroll` read the same roll from it, up to the last sounding row (silence after it is
    kept as the length of the track). `sampled_from`: the row for a marker `continuation`. Raises InputError, which
    names the tune `name`, if nothing sounds.
    """
    notes = sounding(roll, lowest, timing.step)
    if not notes:
        raise InputError(f"{name}: it is silent from beginning to end; choose another tune")
    # At the same time, notes end before others start.
    events = [(note.end, 0, mido.Message("note_off", note=note.pitch, velocity=64)) for note in notes]
    events += [(note.start, 2, mido.Message("note_on", note=note.pitch, velocity=64)) for note in notes]
    if sampled_from is not None:
        events.append((sampled_from * timing.step, 1, mido.MetaMessage("marker", text="continuation")))
    events.append((len(roll) * timing.step, 3, mido.MetaMessage("end_of_track")))
    track = mido.MidiTrack()
    track.append(mido.MetaMessage("track_name", name=name))
    track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(timing.tempo)))
    now = 0
    for time, _, message in sorted(events, key=lambda event: event[:2]):  # stable: then by start and pitch
        track.append(message.copy(time=time - now))
        now = time
    output = io.BytesIO()
    mido.MidiFile(type=0, ticks_per_beat=timing.ticks_per_beat, tracks=[track]).save(file=output)
    return output.getvalue()
