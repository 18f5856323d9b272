"""The settings of a campaign, in the words of those in `paper.yaml`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spectralgru.records import Run
from spectralgru.setting import Setting, number

Runs = Mapping[Setting, Sequence[Run]]


def as_run(name: str, runs: Runs) -> str:
    """Our value of a quantity in `paper.yaml`; empty if it is the paper's."""
    settings = next(iter(runs.values()))[0].settings
    if name in ("delta", "clipping threshold"):
        return _values(runs, "constraint" if name == "delta" else "clipping")
    told = TOLD.get(name)
    return told(settings) if told else ""


def _values(runs: Runs, method: str) -> str:
    values = [number(s.value) for s in runs if s.method == method and s.value is not None]
    return ", ".join(values) or "none"


def _data(settings: Mapping[str, Any]) -> str:
    data = settings["data"]
    splits = [data[split] for split in ("train", "valid", "test")]
    sizes = " / ".join(f"{size:,}" if size else "all" for size in splits)
    return (sizes if any(splits) else "all") + (
        f", {data['vocabulary']:,} types" if data["vocabulary"] else ""
    )


def _rate(settings: Mapping[str, Any]) -> str:
    training = settings["training"]
    rate, schedule = training["learning_rate"], training["schedule"]
    patience, factor = schedule["patience"], schedule["factor"]
    if schedule["kind"] == "decay":
        return f"{rate:g} for {patience} epochs, then / {factor:g} every epoch"
    return (
        f"{rate:g}, / {factor:g} after {patience} epochs without improvement, until {schedule['minimum']:g}"
    )


def _epochs(settings: Mapping[str, Any]) -> str:
    training = settings["training"]
    return ("at most " if training["schedule"]["kind"] == "plateau" else "") + f"{training['epochs']:,}"


TOLD: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "data": _data,
    "first layer": lambda s: (
        f"{s['model']['hidden_size']} units, no bias, output times {s['model']['input_scale']:g}"
    ),
    "GRU layers": lambda s: f"{s['model']['num_layers']} x {s['model']['hidden_size']}",
    "dropout, non-recurrent connections": lambda s: f"{s['model']['dropout']:g}",
    "truncated back-propagation, batch": lambda s: (
        f"{s['training']['bptt_steps']} steps, {s['training']['batch_size']}"
    ),
    "learning rate": _rate,
    "epochs": _epochs,
    "other initial weights": lambda s: (
        f"Gaussian, variance {s['model']['init_scale']:g}/{s['model']['hidden_size']}"
    ),
}
