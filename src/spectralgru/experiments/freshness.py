"""Dates of experiments follow their contents, as those of all other results do: see `spectralgru.freshness`."""

from pathlib import Path

from spectralgru.experiments.base import available, is_concluded, is_made, question
from spectralgru.freshness import confirm, date_of, read_json
from spectralgru.params import Params
from spectralgru.summary import SUMMARY


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
