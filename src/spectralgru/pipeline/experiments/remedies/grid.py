"""The baselines of a corpus, one per line of the table, and the places of their runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spectralgru.pipeline.experiments.plain_loop.job import Cell
from spectralgru.pipeline.params.experiments import BeyondOn, Optimizer
from spectralgru.setting import Method, Setting, number

COST = "cost"
CELLS: dict[Cell, str] = {"GRU": "GRU", "LSTM": "LSTM", "paper": "GRU of the paper"}
LABELS: dict[Method, str] = {
    "constraint": "δ = {}",
    "clipping": "clip {}",
    "autoclip": "AutoClip {} %",
    "zclip": "ZClip {}",
    "none": "none",
    "spectral_norm": "spectral norm, δ = {}",
    "orthogonal": "orthogonal",
    "weight_decay": "weight decay {}",
    "flossing": "flossing {}",
}


@dataclass(frozen=True)
class Baseline:
    """One line of the table."""

    method: Method
    value: float | None = None
    cell: Cell = "GRU"
    optimizer: Optimizer = "SGD"
    layers: int | None = None  # None: as in the settings
    clip: float | None = None  # threshold of additional clipping
    gates: float | None = None  # the constraint's bound on the gates

    @property
    def name(self) -> str:
        """Name in file names: `gru-adam-constraint-0.2`, `gru-2-layers-clipping-5`."""
        parts = [self.cell, "" if self.optimizer == "SGD" else self.optimizer]
        parts += ["" if self.layers is None else f"{self.layers}-layers", self.method.replace("_", "-")]
        parts += ["" if self.value is None else number(self.value)]
        parts += ["" if self.gates is None else f"gates-{number(self.gates)}"]
        parts += ["" if self.clip is None else f"clipping-{number(self.clip)}"]
        return "-".join(part for part in parts if part).lower()

    @property
    def network(self) -> str:
        """Network and optimiser as shown."""
        network = CELLS[self.cell] + ("" if self.optimizer == "SGD" else f", {self.optimizer}")
        return network + ("" if self.layers is None else f", {self.layers} layers")

    @property
    def label(self) -> str:
        """Method as shown."""
        label = LABELS[self.method].format("" if self.value is None else number(self.value))
        label += "" if self.gates is None else f", gates {number(self.gates)}"
        return label + ("" if self.clip is None else f" and clip {number(self.clip)}")


def baselines(on: BeyondOn) -> Iterator[Baseline]:
    """All of a corpus, in the order of the table."""
    pair = (Setting("clipping", on.threshold), Setting("constraint", on.delta))
    three = (*pair, Setting("none"))
    alone = [Setting("spectral_norm", on.delta), Setting("orthogonal")]
    alone += [Setting("weight_decay", strength) for strength in on.decays]
    alone += [Setting("flossing", strength) for strength in on.flossing]
    yield from (Baseline(*method) for method in three)
    yield Baseline("constraint", on.delta, clip=on.threshold)
    for bound in on.gates:
        yield Baseline("constraint", on.delta, gates=bound)
        yield Baseline("constraint", on.delta, gates=bound, clip=on.threshold)
    yield from (Baseline("autoclip", percentile) for percentile in on.percentiles)
    yield from (Baseline("zclip", score) for score in on.scores)
    yield from (Baseline(*method) for method in alone)
    yield from (Baseline(*method, cell="paper") for method in pair)
    yield from (Baseline(*method, cell="LSTM") for method in three)
    if "Adam" in on.rates:
        yield from (Baseline(*method, optimizer="Adam") for method in three)
    yield from (Baseline(*method, layers=depth) for depth in on.depths for method in pair)


def root_of(out: Path, baseline: Baseline, rate: float) -> Path:
    """The place of a baseline's runs at one rate, in the experiment's folder `out`."""
    return out / baseline.name / f"rate-{number(rate)}"
