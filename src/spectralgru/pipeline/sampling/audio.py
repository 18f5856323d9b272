"""MIDI files to sound, with a plain additive voice: every corpus is heard on the same instrument."""

import io

import numpy as np
import numpy.typing as npt

from spectralgru.errors import RunError

RATE = 24_000  # samples per second; the fourth partial of all but a piano's highest notes is below half of it
PARTIALS = (1.0, 0.5, 0.25, 0.125)  # amplitudes; enough to hear basses on small loudspeakers
VOLUME = 0.8  # of the loudest sample; encoding adds a little
COMPRESSION = 0.9  # on libsndfile's scale from 0 to 1: about 3 kB per second


def to_mp3(content: bytes) -> bytes:
    """A MIDI file as mono MP3, with a second in which the last notes fade. The same MIDI gives the same bytes.

    (In OGG it would not: libsndfile gives every file a random serial number.) Raises RunError if pretty_midi or
    soundfile is not installed.
    """
    try:
        import pretty_midi
        import soundfile
    except ModuleNotFoundError as error:
        raise RunError(
            f"sound needs {error.name}, which is not installed; pip install pretty-midi soundfile"
        ) from None

    def voice(phase: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        partials = [size * np.sin(n * phase) for n, size in enumerate(PARTIALS, 1)]
        return np.asarray(np.sum(partials, axis=0))

    sound = VOLUME * pretty_midi.PrettyMIDI(io.BytesIO(content)).synthesize(RATE, voice)
    output = io.BytesIO()
    soundfile.write(output, sound, RATE, format="MP3", compression_level=COMPRESSION)
    return output.getvalue()
