"""The corpora, from their sources (a mirror, the web, the package index, a user's own files) to arrays for the trainer.

`spectralgru.training.data.dataset` reads prepared corpora and needs numpy only; `pipeline.corpora.prepare` makes them
and needs the `pipeline` extra.
"""

from typing import Literal

Kind = Literal["words", "notes"]

# The corpora that come with the project; users define others under `own` in params.yaml.
CORPORA: dict[str, Kind] = {
    "ptb": "words",
    "nottingham": "notes",
    "chorales": "notes",
    "jsb_chorales": "notes",
    "musedata": "notes",
    "piano_midi": "notes",
}
