"""MIDI files, archives and scores, whole and broken: every broken file here is a real one, made on the spot."""

import io
import random
import struct
import time
import tracemalloc
import zipfile
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectralgru.errors import InputError
from spectralgru.pipeline.corpora import chorales, midi, nottingham, pianoroll
from spectralgru.pipeline.corpora.archive import pack, read_members
from spectralgru.pipeline.corpora.midi import Note


def midi_file(*tracks, kind=1, ticks=480):
    """Bytes of a MIDI file; a track is a list of messages."""
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks)
    file.tracks.extend(mido.MidiTrack(track) for track in tracks)
    output = io.BytesIO()
    file.save(file=output)
    return output.getvalue()


def on(pitch, after=0, channel=0, velocity=64):
    return mido.Message("note_on", note=pitch, velocity=velocity, time=after, channel=channel)


def off(pitch, after=0, channel=0):
    return mido.Message("note_off", note=pitch, time=after, channel=channel)


TUNE = midi_file([on(60), off(60, 480), on(64), off(64, 480)], [on(48), off(48, 960)])


@pytest.mark.parametrize("kind", [0, 1])
def test_types_0_and_1_are_read(kind):
    tracks = [[on(60), off(60, 480)]] + ([[on(48), off(48, 960)]] if kind else [])
    score = midi.read(midi_file(*tracks, kind=kind), "a.mid")
    assert score.notes == [Note(60, 0, 480), Note(48, 0, 960)][: kind + 1]
    assert score.ticks_per_beat == 480


def test_tempo_changes_do_not_move_notes():
    tempo = [
        mido.MetaMessage("set_tempo", tempo=200_000),
        mido.MetaMessage("set_tempo", tempo=900_000, time=100),
    ]
    assert midi.read(midi_file(tempo, [on(60, 10), off(60, 480)]), "a.mid").notes == [Note(60, 10, 490)]


def test_note_on_without_velocity_is_a_note_off():
    assert midi.read(midi_file([on(60), on(60, 240, velocity=0)]), "a.mid").notes == [Note(60, 0, 240)]


def test_note_without_off_sounds_to_the_end_of_its_track():
    content = midi_file([on(60), on(64), off(64, 480), mido.MetaMessage("end_of_track", time=240)])
    assert midi.read(content, "a.mid").notes == [Note(64, 0, 480), Note(60, 0, 720)]


def test_note_on_while_sounding_overwrites_the_start_and_a_stray_off_is_ignored():
    content = midi_file([on(60), on(60, 100), off(60, 100), off(60, 100)])
    assert midi.read(content, "a.mid").notes == [Note(60, 100, 200)]


@pytest.mark.parametrize("overlap", [0, 1, 30])
def test_repeated_notes_that_touch_or_overlap_a_little_all_sound(overlap):
    """As Verovio and legato players write them: struck again before, or in the tick in which, the earlier one ends."""
    events = [on(60), on(72)]
    for _ in range(3):
        events += [on(60, 480 - overlap), off(60, overlap)]
    content = midi_file([*events, off(60, 480 - overlap), off(72)])
    notes = [note for note in midi.read(content, "a.mid").notes if note.pitch == 60]
    assert len(notes) == 4
    assert pianoroll.roll(notes, 120, "a.mid")[:, 59].all()
    assert [note.start for note in notes] == [0, *(480 * i - overlap for i in (1, 2, 3))]


def test_percussion_is_not_read_as_pitches():
    drums = [on(38, channel=9), off(38, 480, channel=9)]
    assert midi.read(midi_file([on(60), off(60, 480)], drums), "a.mid").notes == [Note(60, 0, 480)]
    with pytest.raises(InputError, match=r"a\.mid: no notes in it \(percussion does not count\)"):
        midi.read(midi_file(drums), "a.mid")


def test_written_parts_are_never_percussion():
    parts = [[Note(60, 0, 10 + part)] for part in range(17)]
    assert midi.read(midi.write(parts, 480), "a.mid").notes == [part[0] for part in parts]


@pytest.fixture
def _little_memory():
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
    finally:
        tracemalloc.stop()


def chunk(name, data, order=">"):
    return struct.pack(f"{order}4sI", name, len(data)) + data


VENDORS = chunk(b"XFIH", b"x" * 7) + chunk(b"CASM", b"")


@pytest.mark.parametrize(
    "content",
    [
        TUNE[:14] + VENDORS + TUNE[14:] + VENDORS,
        chunk(b"RIFF", b"RMID" + chunk(b"data", TUNE, "<"), "<"),
        chunk(b"RIFF", b"RMID" + chunk(b"DISP", b"odd", "<") + b"\0" + chunk(b"data", TUNE, "<"), "<"),
        TUNE[:4] + struct.pack(">I", 8) + TUNE[8:14] + b"xx" + TUNE[14:],
        TUNE + b"\x1a",
    ],
    ids=["vendor chunks", "RIFF", "RIFF with others", "longer header", "end of CP/M"],
)
def test_what_surrounds_the_tracks_does_not_matter(content):
    assert midi.read(content, "a.mid") == midi.read(TUNE, "a.mid")


@pytest.mark.usefixtures("_little_memory")
@pytest.mark.parametrize("times", [1, 20, 80])
def test_damaged_times_are_refused_and_take_no_memory(times):
    pause = [message for _ in range(times) for message in (on(62, (1 << 28) - 1), off(62, 480))]
    content = midi_file([on(60), off(60, 480), *pause])
    with pytest.raises(InputError, match=r"a\.mid: no note starts or ends for 559240 beats from tick 480"):
        midi.read(content, "a.mid")
    with pytest.raises(InputError, match="a: 100001 steps of 240 ticks, more than 100000"):
        pianoroll.roll([Note(60, 0, 240 * 100_001)], 240, "a")


@pytest.mark.parametrize("track", [b"\xff" * 3_000_000, b"\0\x90\x3c\x40" + b"\x80" * 1_000_000 + b"\0"])
def test_a_number_without_end_is_refused_at_once(track):
    start = time.perf_counter()
    with pytest.raises(InputError, match=r"a\.mid: not a valid MIDI file"):
        midi.read(TUNE[:10] + b"\0\1" + TUNE[12:14] + chunk(b"MTrk", track), "a.mid")
    assert time.perf_counter() - start < 5


def test_many_empty_chunks_take_no_time():
    start = time.perf_counter()
    midi.read(TUNE + bytes(4 << 20)[len(TUNE) :], "a.mid")
    assert time.perf_counter() - start < 5
    with pytest.raises(InputError, match=r"a\.mid: \d+ bytes, more than"):
        midi.read(TUNE + bytes(4 << 20), "a.mid")


def test_tracks_and_channels_hold_their_own_notes():
    content = midi_file(
        [on(60), on(60, 100, channel=1), off(60, 100, channel=1), off(60, 100)], [on(60), off(60, 50)]
    )
    assert midi.read(content, "a.mid").notes == [Note(60, 100, 200), Note(60, 0, 300), Note(60, 0, 50)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (TUNE[: len(TUNE) // 2], "truncated"),
        (TUNE[:10], "truncated"),
        (b"not midi at all", "not a valid MIDI file"),
        (TUNE[:14] + b"MTrX" + TUNE[18:], "not a valid MIDI file"),
        (midi_file([mido.MetaMessage("track_name", name="silence")]), "no notes"),
        (midi_file([on(60), off(60)]), "no notes"),
        (TUNE[:8] + struct.pack(">H", 7) + TUNE[10:], "type 7"),
        (TUNE[:12] + struct.pack(">h", -26 * 256 + 40) + TUNE[14:], "gives no time"),
        (TUNE[:12] + b"\0\0" + TUNE[14:], "gives no time"),
        (b"RIFF\0\0\0\0RMIDdata", "truncated"),
        (b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + bytes(16), "not a valid MIDI file"),
    ],
    ids=[
        "empty",
        "half",
        "header only",
        "text",
        "no track",
        "no notes",
        "no length",
        "type 7",
        "smpte",
        "no division",
        "half a RIFF",
        "sound",
    ],
)
def test_bad_midi_is_refused_by_name_and_reason(content, reason):
    with pytest.raises(InputError, match=rf"^jig\.mid: .*{reason}.*"):
        midi.read(content, "jig.mid")


def test_the_sequences_of_type_2_follow_one_another():
    content = midi_file([on(60), off(60, 480)], [on(62, 240), off(62, 480)], [on(64), off(64, 10)], kind=2)
    assert midi.read(content, "a.mid").notes == [Note(60, 0, 480), Note(62, 720, 1200), Note(64, 1200, 1210)]


@pytest.mark.parametrize(("frames", "ticks"), [(24, 40), (25, 40), (29, 80), (30, 255)])
def test_smpte_time_becomes_beats_by_the_first_tempo(frames, ticks):
    tempo = 600_000  # 100 beats a minute
    second = Fraction(30_000, 1001) * ticks if frames == 29 else frames * ticks
    beat = round(second * Fraction(6, 10))
    content = midi_file(
        [mido.MetaMessage("set_tempo", tempo=tempo), on(60), off(60, 2 * beat), on(62), off(62, beat)]
    )
    score = midi.read(content[:12] + struct.pack(">bB", -frames, ticks) + content[14:], "a.mid")
    assert score.tempo == 100
    roll = pianoroll.roll(score.notes, score.ticks_per_beat * Fraction(1, 4), "a.mid", lowest=0, columns=128)
    assert np.argmax(roll, axis=1).tolist() == [60] * 8 + [62] * 4


def test_damaged_midi_is_read_or_refused_but_never_crashes():
    rng, refused = random.Random(0), 0
    for _ in range(500):
        damaged = bytearray(TUNE[: rng.randrange(len(TUNE) // 2, len(TUNE) + 1)])
        for _ in range(rng.randrange(4)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        try:
            midi.read(bytes(damaged), "damaged.mid")
        except InputError:
            refused += 1
    assert refused > 100


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(1, 93), st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=8
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_is_read_back(parts):
    # Voices sing one note at a time, one after the other.
    voices = []
    for part in parts:
        now, notes = 0, []
        for pitch, rest, length in part:
            notes.append(Note(pitch, now + rest, now + rest + length))
            now += rest + length
        voices.append(notes)
    assert midi.read(midi.write(voices, 480), "a.mid").notes == [note for voice in voices for note in voice]


@given(
    st.lists(
        st.tuples(st.integers(1, 93), st.integers(0, 4000), st.integers(1, 2000)), min_size=1, max_size=20
    ),
    st.sampled_from([120, 240, 241]),
)
def test_roll_agrees_with_the_definition(notes, step):
    notes = [Note(pitch, start, start + length) for pitch, start, length in notes] + [Note(50, 0, step)]
    roll = pianoroll.roll(notes, step, "tune")
    sounding = {
        (row, n.pitch - 1)
        for n in notes
        for row in range(int(np.floor(n.start / step + 0.5)), int(np.floor(n.end / step + 0.5)))
    }
    assert roll.dtype == np.uint8
    assert set(zip(*np.nonzero(roll), strict=True)) == sounding
    assert len(roll) == 1 + max(row for row, _ in sounding) or not roll[-1].any()


def test_roll_transposes_and_refuses_what_leaves_the_range():
    assert pianoroll.roll([Note(60, 0, 240)], 240, "tune", transpose=-2)[0, 57] == 1
    with pytest.raises(InputError, match=r"^tune: pitch 94 .*transpose"):
        pianoroll.roll([Note(92, 0, 240)], 240, "tune", transpose=2)
    with pytest.raises(InputError, match=r"^tune: shorter than half a step"):
        pianoroll.roll([Note(60, 0, 100)], 240, "tune")


def test_nottingham_drops_the_first_row():
    roll = nottingham.tune(midi_file([on(60, 240), off(60, 480)]), "a.mid", transpose=3)
    assert roll.shape == (2, 93)
    assert roll[:, 62].tolist() == [1, 1]


# Archives


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "tunes.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("deep/a.mid", TUNE * 50)
        zipped.writestr("readme.txt", "no music")
    return path


def test_members_are_chosen_by_suffix(archive):
    assert list(read_members(archive, (".mid",))) == [("deep/a.mid", TUNE * 50)]


def test_truncated_archive(archive):
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"tunes\.zip: truncated or damaged archive .*fetch it again"):
        list(read_members(archive, (".mid",)))


@pytest.mark.parametrize("position", [0, 45, 50, 55])  # local header, then compressed data
def test_bit_flipped_archive(archive, position):
    content = bytearray(archive.read_bytes())
    content[position] ^= 0x10
    archive.write_bytes(content)
    with pytest.raises(InputError, match=r"tunes\.zip: truncated or damaged archive"):
        list(read_members(archive, (".mid",)))


@pytest.mark.parametrize(
    "name", ["../evil.mid", "a/../../evil.mid", "/etc/evil.mid", "..\\evil.mid", "C:\\evil.mid"]
)
def test_member_that_escapes_is_refused_before_anything_is_read(tmp_path, name):
    path = tmp_path / "in" / "tunes.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("good.mid", TUNE)
        zipped.writestr(name, TUNE)
    with pytest.raises(InputError, match="outside the archive's folder"):
        next(iter(read_members(path, (".mid",))))
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "tunes.zip"]


def test_members_that_grow_or_are_packed_otherwise_are_refused_unread(tmp_path):
    bomb, other, many = (tmp_path / f"{name}.zip" for name in ("bomb", "other", "many"))
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as zipped, zipped.open("a.mid", "w") as member:
        for _ in range(64):
            member.write(bytes(1 << 20))
    with zipfile.ZipFile(other, "w", zipfile.ZIP_LZMA) as zipped:
        zipped.writestr("a.mid", TUNE)
    with zipfile.ZipFile(many, "w", zipfile.ZIP_DEFLATED) as zipped:
        for number in range(40):
            zipped.writestr(f"{number}.mid", bytes(1 << 20))
    with pytest.raises(InputError, match=r"bomb\.zip: member 'a\.mid' unpacks to 67108864 bytes"):
        list(read_members(bomb, (".mid",)))
    assert list(read_members(bomb, (".txt",))) == []
    with pytest.raises(InputError, match=r"other\.zip: member 'a\.mid' is neither stored nor deflated"):
        list(read_members(other, (".mid",)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spectralgru.pipeline.corpora.archive.BYTES", 30 << 20)
        with pytest.raises(InputError, match=r"many\.zip: .* all members so far to 32505856"):
            list(read_members(many, (".mid",)))


def test_nottingham_archive_without_a_tune_of_the_table(archive):
    with pytest.raises(InputError, match=r"tunes\.zip: .*\.mid with SHA-256 [0-9a-f]{64} is not in it"):
        nottingham.read(archive)


# Chorales: scores by way of MIDI, against music21's own account of who sounds when

BACH = Path(find_spec("music21").submodule_search_locations[0]) / "corpus" / "bach"
# Plain and compressed; ties; sixteenths; a grace note; a pick-up measure; the file with another member name inside
SCORES = ["bwv67.4.xml", "bwv66.6.mxl", "bwv299.mxl", "bwv253.mxl", "bwv113.8.mxl"]


@pytest.mark.parametrize("name", SCORES)
def test_chorale_sounds_as_music21_says(name):
    from music21 import converter

    content = chorales.to_midi((BACH / name).read_bytes(), name)
    roll = pianoroll.roll(midi.read(content, name).notes, chorales.STEP, name)
    score = converter.parse(BACH / name, forceSource=True, storePickle=False)
    for note in [n for n in score.recurse().notes if n.duration.isGrace]:
        score.remove(note, recurse=True)
    # Notes off the grid are rounded to it, so compare the steps that one chord of all voices fills.
    chords = score.chordify().flatten()
    compared = 0
    for chord in chords.getElementsByClass("Chord"):
        start, end = float(chord.offset) * 2, float(chord.offset + chord.quarterLength) * 2
        for step in range(int(np.ceil(start)), int(np.floor(end))):
            assert (np.flatnonzero(roll[step]) + 1).tolist() == sorted({p.midi for p in chord.pitches})
            compared += 1
    assert compared > 0.8 * len(roll)


def test_scores_with_other_parts_are_no_chorales():
    assert chorales.to_midi((BACH / "bwv1.6.mxl").read_bytes(), "bwv1.6.mxl") is None  # horn and four voices


def test_damaged_score_is_refused():
    good = (BACH / "bwv66.6.mxl").read_bytes()
    deep = b"<score-partwise>" + b"<part>" * 20_000
    for content in (b"", b"<score-partwise>", good[:1000], deep):
        for name in ("a.xml", "a.mxl"):
            with pytest.raises(InputError, match=rf"^{name}: not a MusicXML score"):
                chorales.to_midi(content, name)


def test_chorales_go_round_the_splits_and_repeats_in_another_key_are_left_out(tmp_path):
    def song(base, *steps):
        return midi.write([[Note(base + s, 240 * i, 240 * i + 240) for i, s in enumerate(steps)]], 480)

    songs = [song(60, i, 0, 5) for i in range(6)]
    songs.insert(3, song(62, 1, 0, 5))  # the second, a tone higher
    path = tmp_path / "midi.zip"
    path.write_bytes(pack({f"bwv{i}.mid": s for i, s in enumerate(songs)}))
    splits = chorales.read(path)
    assert {split: len(tunes) for split, tunes in splits.items()} == {"train": 4, "valid": 1, "test": 1}
    assert np.array_equal(splits["valid"][0], pianoroll.roll(midi.read(songs[4], "").notes, 240, ""))
