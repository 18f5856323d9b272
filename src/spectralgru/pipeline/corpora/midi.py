"""MIDI files to notes, with mido."""

import io
import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate, cycle, pairwise
from typing import NamedTuple

import mido
from mido.midifiles.meta import KeySignatureError

from spectralgru.errors import InputError

PERCUSSION = 9  # channel 10 as musicians count; its notes stand for instruments, not pitches
LARGEST = 4 << 20  # bytes; several times the size of the longest score
LONGEST_PAUSE = 256  # beats in which no note starts or ends
FRAMES = {
    24: Fraction(24),
    25: Fraction(25),
    29: Fraction(30_000, 1001),
    30: Fraction(30),
}  # per second, in SMPTE
LEGATO = 16  # a note may last 1/16 of a beat longer than the next onset of its pitch


class Note(NamedTuple):
    """A sounding pitch; times in ticks from the start of the file."""

    pitch: int  # MIDI number, 0-127
    start: int
    end: int


class Score(NamedTuple):
    """The notes of a MIDI file, in order of their ends."""

    notes: list[Note]
    ticks_per_beat: int | Fraction
    tempo: float = 120.0  # the first one, in quarter notes per minute


def read(content: bytes, name: str, drums: bool = False) -> Score:
    """The notes of a MIDI file. Times are in ticks, so tempo changes have no effect.

    Tracks sound together; those of type 2 follow one another. SMPTE time becomes beats at the first tempo. Each track
    and channel has its own notes. A note-on for a sounding pitch overwrites its start, unless the earlier note ends
    within 1/16 of a beat: then both sound. A note-off for a silent pitch is ignored; a note without note-off sounds to
    the end of its track. Percussion (channel 10) is left out unless `drums`. Chunks that the standard does not know are
    ignored, and RIFF containers (.rmi) are opened.

    Raises InputError, which names the file `name`, if the file is empty, truncated, damaged or not MIDI, or if it has
    no notes, or 256 beats without events.
    """
    kind, division, chunks = _opened(content, name)
    if kind not in (0, 1, 2):
        raise InputError(f"{name}: unknown MIDI type {kind}; export it as type 0 or 1")
    tracks = [_track(chunk, name) for chunk in chunks]
    tempo = _tempo(tracks)
    beat = _beat(division, tempo, name)
    lengths = [sum(message.time for message in track) if kind == 2 else 0 for track in tracks]
    notes = [
        Note(note.pitch, begin + note.start, begin + note.end)
        for track, begin in zip(tracks, accumulate(lengths, initial=0), strict=False)
        for note in _notes(track, beat, drums)
    ]
    if not notes:
        raise InputError(f"{name}: no notes in it (percussion does not count); leave it out or replace it")
    times = sorted({0, *(note.start for note in notes), *(note.end for note in notes)})
    for before, after in pairwise(times):
        if after - before > LONGEST_PAUSE * beat:
            raise InputError(
                f"{name}: no note starts or ends for {(after - before) // beat} beats from tick {before} "
                "(a damaged time?); export it again, or leave it out"
            )
    return Score(notes, beat, 60e6 / tempo)


def _opened(content: bytes, name: str) -> tuple[int, int, list[bytes]]:
    """Type, division and the content of each track chunk."""
    remedy = "fetch or export it again"
    if not content:
        raise InputError(f"{name}: empty file; replace it with a MIDI file")
    if len(content) > LARGEST:
        raise InputError(f"{name}: {len(content)} bytes, more than the {LARGEST} of any score; leave it out")
    if content[:4] == b"RIFF" and content[8:12] == b"RMID":
        content = next((data for kind, _, data in _chunks(content[12:], "<") if kind == b"data"), b"")
    if len(content) < 14 and b"MThd".startswith(content[:4]):
        raise InputError(f"{name}: truncated MIDI file; {remedy}")
    chunks = list(_chunks(content, ">"))
    if not chunks or chunks[0][0] != b"MThd" or len(chunks[0][2]) < 6:
        raise InputError(f"{name}: not a valid MIDI file (it does not begin with MThd); {remedy}")
    kind, count, division = struct.unpack(">HHh", chunks[0][2][:6])
    tracks = [(size, data) for chunk, size, data in chunks if chunk == b"MTrk"]
    if any(len(data) < size for size, data in tracks) or not chunks[1:]:
        raise InputError(f"{name}: truncated MIDI file; {remedy}")
    if len(tracks) < count:
        raise InputError(f"{name}: not a valid MIDI file ({len(tracks)} of {count} tracks in it); {remedy}")
    return kind, division, [data for _, data in tracks]


def _chunks(content: bytes, order: str) -> Iterator[tuple[bytes, int, bytes]]:
    """Name, announced size and content of each chunk; the last may be shorter. RIFF pads chunks to an even size."""
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}4sI", content, at)
        if kind == bytes(4):  # padding, not a chunk
            break
        yield kind, size, content[at + 8 : at + 8 + size]
        at += 8 + size + (size % 2 if order == "<" else 0)


def _track(chunk: bytes, name: str) -> mido.MidiTrack:
    """The messages of one track, which mido reads as a separate file so that it cannot run on into the next."""
    # mido accepts numbers of any length, and its time grows with the square of the length.
    if re.search(rb"[\x80-\xff]{10000}", chunk):
        raise InputError(f"{name}: not a valid MIDI file (a number without end); fetch or export it again")
    header = struct.pack(">4sIHHH4sI", b"MThd", 6, 0, 1, 1, b"MTrk", len(chunk))
    try:
        return mido.MidiFile(file=io.BytesIO(header + chunk)).tracks[0]
    except EOFError:
        raise InputError(f"{name}: truncated MIDI file; fetch or export it again") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, KeySignatureError) as error:
        raise InputError(f"{name}: not a valid MIDI file ({error}); fetch or export it again") from None


def _tempo(tracks: list[mido.MidiTrack]) -> int:
    """The first tempo, in microseconds per beat."""
    tempi = (message.tempo for track in tracks for message in track if message.type == "set_tempo")
    return next(filter(None, tempi), 500_000)  # the standard's default


def _beat(division: int, tempo: int, name: str) -> int | Fraction:
    """Ticks per beat. SMPTE time has ticks per second, so that a beat is as long as the tempo says."""
    if division > 0:
        return division
    frames, ticks = FRAMES.get(-(division >> 8)), division & 0xFF
    if not frames or not ticks:
        raise InputError(f"{name}: its header gives no time ({division}); export it with ticks per beat")
    return frames * ticks * Fraction(tempo, 1_000_000)


def _notes(track: mido.MidiTrack, ticks_per_beat: int | Fraction, drums: bool) -> list[Note]:
    notes = []
    sounding: dict[tuple[int, int], int] = {}
    earlier: dict[tuple[int, int], int] = {}  # starts of notes struck again before they ended
    now = 0
    for message in track:
        now += message.time
        if message.type not in ("note_on", "note_off") or (message.channel == PERCUSSION and not drums):
            continue
        key = (message.channel, message.note)
        if message.type == "note_on" and message.velocity > 0:
            if key in sounding:
                earlier[key] = sounding[key]
            sounding[key] = now
        elif key in earlier and LEGATO * (now - sounding[key]) <= ticks_per_beat:
            notes.append(Note(message.note, earlier.pop(key), now))
        elif key in sounding:
            earlier.pop(key, None)
            notes.append(Note(message.note, sounding.pop(key), now))
    notes += [Note(pitch, start, now) for (_, pitch), start in sounding.items()]
    return [note for note in notes if note.end > note.start]


def write(parts: list[list[Note]], ticks_per_beat: int) -> bytes:
    """A MIDI file of type 1 with a track for each part, none for percussion. The same notes give the same bytes."""
    file = mido.MidiFile(type=1, ticks_per_beat=ticks_per_beat)
    melodic = [channel for channel in range(16) if channel != PERCUSSION]
    for channel, part in zip(cycle(melodic), parts, strict=False):
        # At the same time, notes end before others start.
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
