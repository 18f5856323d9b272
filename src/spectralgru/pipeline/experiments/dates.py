"""Dates of experiments follow their contents, as those of all other results do: see `spectralgru.pipeline.dates`."""

from pathlib import Path

from spectralgru.pipeline.dates import confirm, date_of, read_json
from spectralgru.pipeline.experiments.base import available, is_concluded, is_made, question
from spectralgru.pipeline.params import Params
from spectralgru.pipeline.summary import SUMMARY


def settle_experiments(params: Params, data: Path, root: Path) -> None:
    """Date parts and conclusions of all experiments below `root` (`results/<scale>`) by what they hold."""
    for name, parts in available(params).items():
        out, keys, newest = root / "experiments" / name, {}, 0
        for part in parts:
            prepared = data / "prepared" / f"{part.corpus}.npz"
            digest = read_json(prepared.with_suffix(".json")).get("sha256", "")
            keys[part] = key = question(name).key(params, part, digest)
            record = part.record(out)
            confirm([record], is_made(record, key, out), date_of(prepared))
            newest = max(newest, date_of(record))
        confirm([out / SUMMARY], is_concluded(out, keys), newest)
