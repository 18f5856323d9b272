"""The corpora: from sources (a mirror, the web, the package index) to arrays a trainer can read.

`spectralgru.training.data.dataset` reads prepared corpora and needs numpy only; `pipeline.corpora.prepare` makes them
and needs the `pipeline` extra.
"""

CORPORA: tuple[str, ...] = ("ptb", "nottingham", "chorales", "jsb_chorales", "musedata", "piano_midi")
