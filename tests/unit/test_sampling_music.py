"""Piano rolls to MIDI files and back."""

import io
from fractions import Fraction

import mido
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spectralgru.errors import InputError
from spectralgru.pipeline.corpora import midi, pianoroll
from spectralgru.pipeline.sampling.audio import to_mp3
from spectralgru.pipeline.sampling.music import Timing, sounding, timing_of, to_midi
from spectralgru.training.data.dataset import Notes

STEPS = [
    Fraction(1),
    Fraction(1, 2),
    Fraction(3, 2),
    Fraction(1, 7),
    Fraction(5, 61),
    Fraction(1, 64),
    Fraction(4),
]


def timing(step: Fraction, tempo: float = 120) -> Timing:
    return timing_of(Notes("x", "0", *[np.zeros(0)] * 6, lowest=1, step=step, tempo=tempo))


@st.composite
def rolls(draw, notes: int) -> np.ndarray:
    """Sparse, dense and silent stretches; something sounds."""
    shape = (draw(st.integers(1, 40)), notes)
    roll = draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 1), fill=st.just(0)))
    dense = np.random.default_rng(draw(st.integers(0, 99))).random(shape) < draw(
        st.sampled_from([0, 0.1, 0.9])
    )
    roll = roll | dense.astype(np.uint8)
    roll[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, notes - 1))] = 1
    return roll


def until_last_note(roll: np.ndarray) -> np.ndarray:
    return roll[: np.flatnonzero(roll.any(axis=1))[-1] + 1]


@given(st.data())
def test_read_back_it_is_the_roll(data):
    step, lowest = data.draw(st.sampled_from(STEPS)), data.draw(st.integers(0, 35))
    roll, of = data.draw(rolls(93)), timing(step)
    content = to_midi(roll, lowest, of, "x", data.draw(st.integers(0, len(roll))))
    score = midi.read(content, "x")
    read = pianoroll.roll(score.notes, step * score.ticks_per_beat, "x", lowest=lowest)
    np.testing.assert_array_equal(read, until_last_note(roll))
    assert content == to_midi(roll, lowest, of, "x", None) or b"continuation" in content


@given(rolls(93))
def test_notes_are_joined(roll):
    notes = sounding(roll, 1, 1)
    assert sum(note.end - note.start for note in notes) == roll.sum()
    ends = {(note.pitch, note.end) for note in notes}
    assert not ends & {(note.pitch, note.start) for note in notes}
    read = midi.read(to_midi(roll, 1, Timing(240, 120), "x"), "x").notes
    assert sorted(read) == sorted(sounding(roll, 1, 240))


def test_the_file_says_tempo_length_and_where_the_continuation_begins():
    roll = np.zeros((10, 93), np.uint8)
    roll[2:5, 59] = 1
    file = mido.MidiFile(file=io.BytesIO(to_midi(roll, 1, timing(Fraction(1, 2), 96), "chorales test 0", 4)))
    (track,) = file.tracks
    at, seen = 0, {}
    for message in track:
        at += message.time
        seen[message.type] = at, message
    assert file.ticks_per_beat == 480
    assert mido.tempo2bpm(seen["set_tempo"][1].tempo) == pytest.approx(96)
    assert {name: seen[name][0] for name in ("note_on", "note_off", "marker", "end_of_track")} == {
        "note_on": 2 * 240,
        "note_off": 5 * 240,
        "marker": 4 * 240,
        "end_of_track": 10 * 240,  # the silence at the end counts
    }
    assert seen["note_on"][1].note == 60
    assert seen["track_name"][1].name == "chorales test 0"


def test_four_bars_are_given():
    assert [timing(step).beginning for step in STEPS] == [16, 32, 10, 112, 195, 1024, 4]


def loudness(sound: np.ndarray, rate: int, pitch: int, begin: float, end: float) -> float:
    """Of a pitch within a time, by its Fourier coefficient."""
    part = sound[int(begin * rate) : int(end * rate)]
    time = np.arange(len(part)) / rate
    return abs(np.mean(part * np.exp(-2j * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time)))


@pytest.mark.parametrize(
    "timing", [timing(Fraction(1, 2), 96), timing(Fraction(3, 7), 150.5), Timing(120, 150)]
)
def test_what_is_heard_is_the_roll_in_its_step_and_tempo(timing):
    roll = np.zeros((16, 93), np.uint8)
    roll[:8, 59] = roll[8:, 66] = 1  # 60, then 67
    content = to_midi(roll, 1, timing, "x")
    sound, rate = soundfile.read(io.BytesIO(to_mp3(content)))
    half = timing.seconds(8)
    assert sound.ndim == 1
    assert len(sound) / rate == pytest.approx(2 * half + 1, abs=0.1)
    first, second = (0.2 * half, 0.9 * half), (1.2 * half, 1.9 * half)
    assert loudness(sound, rate, 60, *first) > 20 * loudness(sound, rate, 67, *first)
    assert loudness(sound, rate, 67, *second) > 20 * loudness(sound, rate, 60, *second)
    assert 0.5 < np.abs(sound).max() < 1
    assert to_mp3(content) == to_mp3(content)


def test_silence_is_refused():
    with pytest.raises(InputError, match="chorales test 3: it is silent"):
        to_midi(np.zeros((5, 93), np.uint8), 1, timing(Fraction(1, 2)), "chorales test 3")
