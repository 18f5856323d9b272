"""The cause that the numbers of an autopsy point to."""

from dataclasses import dataclass
from itertools import pairwise
from math import dist, hypot, inf, isfinite, log
from statistics import median

from torch import Tensor

from spectralgru.diagnosis.ring import PlainStep

# A gradient that time multiplies by less than this is not an explosion.
GROWS = 10.0
# The growth needs a path if cutting it removes this share of the growth's logarithm.
NEEDED = 0.25
# A layer whose norms change by this share in one step has too high a learning rate.
MOVES = 0.1
# A batch is unlike the others if its inputs are this many times larger or smaller than the median before it.
FOREIGN = 3.0


@dataclass(frozen=True)
class Cause:
    """What made the gradient large: a keyword, the place, and a sentence."""

    kind: str  # a path ("update gate", "candidate", ...), "layer", "batch", "weights" or "unknown"
    where: str  # name of the weight or parameter, or ""
    words: str


def through_time(
    weight: str, growth: float, cuts: dict[str, tuple[float, float]], norm: float, sigma: dict[str, float]
) -> Cause | None:
    """The block through which the gradient of a layer grew, or None if it did not grow.

    Args:
        weight: name of the layer's recurrent weight.
        growth: what time multiplied the gradient by.
        cuts: norm of the whole gradient and growth with each path cut, and with all of them ("all").
        norm: of the whole gradient.
        sigma: sigma_1 of each block.
    """
    if growth < GROWS or cuts["all"][0] > norm / 2:
        return None
    saved = {p: 1 - log(max(g, 1.0)) / log(growth) for p, (_, g) in cuts.items() if p != "all"}
    needed = [path for path, share in saved.items() if share >= NEEDED and path in sigma]
    if not needed:
        needed = [max((p for p in saved if p in sigma), key=lambda p: saved[p])]
    limit = 1.0 if "recurrence" in sigma else 2.0
    excess = {path: sigma[path] / limit for path in needed}
    worst = max(excess, key=lambda p: excess[p])
    guilty = [p for p in needed if excess[p] > 1 and excess[p] > excess[worst] / 2] or [worst]
    guilty.sort(key=lambda p: -excess[p])
    words = (
        f"the gradient grows {growth:.3g} times on its way back through {weight}, through the "
        + " and the ".join(f"{path} (sigma_1 {sigma[path]:.3g})" for path in guilty)
    )
    if guilty[0] in ("candidate", "recurrence"):
        words += f"; below {limit:g} the origin would be stable"
    if others := [path for path in needed if path not in guilty]:
        words += f". It also needs the {' and the '.join(others)}: with that cut, most of the growth is gone"
    return Cause(guilty[0], weight, words)


def not_finite(parameters: dict[str, Tensor], inputs: list[Tensor]) -> Cause | None:
    """A weight or an input that was not finite before the step, or None."""
    bad = [name for name, p in parameters.items() if p.is_floating_point() and not p.isfinite().all()]
    if any(t.is_floating_point() and not t.isfinite().all() for t in inputs):
        return Cause("batch", "", "the batch itself holds NaN or infinity: look at the data")
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        return Cause(
            "weights", bad[0], f"{bad[0]}{more} was not finite before this step: look at an earlier recording"
        )
    return None


def from_history(ring: list[PlainStep], names: list[str], rates: dict[str, float]) -> Cause | None:
    """What stands out against the steps before, if the gradient did not grow through time; None if nothing does."""
    now, before = ring[-1], [s for s in ring[:-1] if s["optimizer"] == ring[-1]["optimizer"]]
    if len(before) < 2:
        return None
    usual = median([s["inputs"] for s in before])
    ratio = now["inputs"] / usual if usual > 0 else 1.0
    if not 1 / FOREIGN < ratio < FOREIGN:
        words = f"its inputs are {ratio:.3g} times as large as those of the steps before; the weights had been at rest"
        return Cause("batch", "", f"this batch is unlike the others: {words}")
    moves = _moves([*before, now], names)
    layer = max(moves, key=lambda name: moves[name])
    if moves[layer] > MOVES:
        rate = next((f" at a rate of {r:g}" for name, r in rates.items() if name.startswith(layer)), "")
        words = f"{layer} changed by {moves[layer]:.0%} of its norm in a step{rate}: its learning rate is too high"
        return Cause("layer", layer, f"the gradient does not grow through time; {words}")
    losses = [s["loss"] for s in before if s["loss"] is not None and isfinite(s["loss"])]
    if losses and now["loss"] is not None and now["loss"] <= FOREIGN * median(losses):
        return None  # an ordinary batch
    norm = median([s["norm"] for s in before])
    jump = now["norm"] / norm if norm > 0 and isfinite(now["norm"]) else inf
    words = f"the gradient is {jump:.3g} times its median, while no weight moved more than {moves[layer]:.1%} in a step"
    if losses and now["loss"] is not None:
        words += f"; the loss {now['loss']:.4g}, its median {median(losses):.4g}"
    return Cause("batch", "", f"this batch is unlike the others: {words}. Look at its inputs and targets")


def _moves(steps: list[PlainStep], names: list[str]) -> dict[str, float]:
    """The largest change of each layer's norms in one of the last ten steps, as a share of the layer's norm."""
    layers: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        layers.setdefault(name.rpartition(".")[0], []).append(index)
    pairs = list(pairwise(step["weights"] for step in steps[-11:]))
    return {
        layer: max(
            dist([a[i] for i in where], [b[i] for i in where]) / (hypot(*(a[i] for i in where)) or inf)
            for a, b in pairs
        )
        for layer, where in layers.items()
    }


def not_through_time(gradients: dict[str, Tensor], growth: float) -> Cause:
    """Where the gradient is large, if nothing is known of the steps before."""
    norms = {name: float(g.double().norm()) for name, g in gradients.items()}
    name = max(norms, key=lambda n: norms[n])
    share = (norms[name] / sum(v * v for v in norms.values()) ** 0.5) ** 2 if norms[name] else 0.0
    words = f"the gradient grows at most {growth:.3g} times through time; {share:.0%} of its square is that of {name}"
    return Cause(
        "unknown", name, f"{words}. It was large already when it came in: look at the batch and the loss"
    )
