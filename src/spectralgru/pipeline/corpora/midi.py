"""MIDI files to notes, with mido."""

import io
from typing import NamedTuple

import mido
from mido.midifiles.meta import KeySignatureError

from spectralgru.errors import InputError


class Note(NamedTuple):
    """A sounding pitch; times in ticks from the start of the file."""

    pitch: int  # MIDI number, 0-127
    start: int
    end: int


class Score(NamedTuple):
    """The notes of a MIDI file, in the order in which they end."""

    notes: list[Note]
    ticks_per_beat: int


def read(content: bytes, name: str) -> Score:
    """Notes of a MIDI file of type 0 or 1; tempo changes do not matter, times are in ticks.

    Each track and channel has its own notes. A note-on for a pitch already sounding overwrites its start; a note-off
    for a silent pitch is ignored; a note without note-off sounds to the end of its track. Percussion is not told
    apart.

    Raises InputError, naming the file `name`, if it is empty, truncated or not MIDI, of type 2, timed in SMPTE frames,
    or has no notes.
    """
    if not content:
        raise InputError(f"{name}: empty file; replace it by a MIDI file")
    try:
        file = mido.MidiFile(file=io.BytesIO(content))
    except EOFError:
        raise InputError(f"{name}: truncated MIDI file; fetch or export it again") from None
    except (OSError, ValueError, KeyError, IndexError, TypeError, KeySignatureError) as error:
        raise InputError(f"{name}: not a valid MIDI file ({error}); fetch or export it again") from None
    if file.type == 2:
        raise InputError(
            f"{name}: MIDI type 2 (independent sequences) has no common time; export it as type 0 or 1"
        )
    if file.type not in (0, 1):
        raise InputError(f"{name}: unknown MIDI type {file.type}; export it as type 0 or 1")
    if file.ticks_per_beat <= 0:
        raise InputError(f"{name}: timed in SMPTE frames, not in beats; export it with ticks per beat")
    notes = [note for track in file.tracks for note in _notes(track)]
    if not notes:
        raise InputError(f"{name}: no notes in it; leave it out or replace it")
    return Score(notes, file.ticks_per_beat)


def _notes(track: mido.MidiTrack) -> list[Note]:
    notes = []
    sounding: dict[tuple[int, int], int] = {}
    now = 0
    for message in track:
        now += message.time
        if message.type not in ("note_on", "note_off"):
            continue
        key = (message.channel, message.note)
        if message.type == "note_on" and message.velocity > 0:
            sounding[key] = now
        elif key in sounding:
            notes.append(Note(message.note, sounding.pop(key), now))
    notes += [Note(pitch, start, now) for (_, pitch), start in sounding.items()]
    return [note for note in notes if note.end > note.start]


def write(parts: list[list[Note]], ticks_per_beat: int) -> bytes:
    """A MIDI file of type 1 with one track and channel a part (at most 16); the same notes give the same bytes."""
    file = mido.MidiFile(type=1, ticks_per_beat=ticks_per_beat)
    for channel, part in enumerate(parts):
        # At one time, notes end before others start.
        events = sorted(
            [(note.end, 0, note.pitch) for note in part] + [(note.start, 1, note.pitch) for note in part]
        )
        track, now = mido.MidiTrack(), 0
        for time, on, pitch in events:
            kind = "note_on" if on else "note_off"
            track.append(mido.Message(kind, channel=channel, note=pitch, velocity=64, time=time - now))
            now = time
        file.tracks.append(track)
    output = io.BytesIO()
    file.save(file=output)
    return output.getvalue()
