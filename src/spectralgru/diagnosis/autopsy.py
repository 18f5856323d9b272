"""Why a gradient exploded: where it grew, through which path, and what would have helped."""

from collections.abc import Callable
from math import inf, isfinite
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spectralgru.diagnosis import causes
from spectralgru.diagnosis.arguments import arguments_of, loss_of, replay_of
from spectralgru.diagnosis.capture import rates_of
from spectralgru.diagnosis.causes import Cause
from spectralgru.diagnosis.findings import Autopsy, Layer
from spectralgru.diagnosis.lyapunov import lyapunov_exponents
from spectralgru.diagnosis.naming import plain_names
from spectralgru.diagnosis.recording import Recording, first_line
from spectralgru.diagnosis.remedies import tried
from spectralgru.diagnosis.replay import Growth, ModelReplay, Outcome, Replay
from spectralgru.diagnosis.spectra import exact_spectra
from spectralgru.diagnosis.taps import tensors_of
from spectralgru.errors import InputError


def autopsy(
    model: nn.Module | None,
    batch: Any,
    loss: Callable[..., Tensor] | None = None,
    *,
    optimizer: Optimizer | None = None,
    dtype: torch.dtype | None = None,
    delta: float = 0.2,
    gates: float = 2.0,
) -> Autopsy:
    """Repeat a batch cell by cell and say where its gradient grew, and why.

    The model is not changed. Dropout between layers is drawn as on a CPU; that of cuDNN cannot be repeated.

    Args:
        model: contains GRU, LSTM or RNN modules or their cells. None: only the recorded calls of such modules are
            repeated, in float64, with the gradients that came back to them.
        batch: a `Recording` or the path of one; or what the model is called with: a tensor, a tuple, a dict by name.
        loss: a function of the model's output and, by name, of what `ExplosionRecorder.note` was given. None: the
            output is the loss or has one (`.loss`, `["loss"]`); with a recording, the gradient that came back to the
            output is used.
        optimizer: gives the learning rates of the step that is tried; a recording has its own.
        dtype: of the replay; None: the model's own, or float64 if that overflows.
        delta: of the constraint that is tried.
        gates: of the same constraint.

    Raises:
        InputError: not a recording; the model does not fit it or runs nothing recurrent; there is no loss.
    """
    if not 0 < delta < 2 or not 0 < gates < inf:
        raise InputError(f"delta={delta}: must be above 0 and below 2; gates={gates}: must be above 0")
    recording = Recording.read(batch) if isinstance(batch, str | Path) else batch
    if not isinstance(recording, Recording):
        if model is None:
            raise InputError("a batch needs its model: autopsy(model, batch, loss)")
        recording, args, kwargs = None, *arguments_of(batch)
        replay: Replay = ModelReplay(model, args, kwargs, loss or loss_of, dtype=dtype)
        optimizers = [] if optimizer is None else [optimizer]
        rates = rates_of(plain_names(model, nn.Module.named_parameters), optimizers)
    else:
        replay = replay_of(model, recording, loss, dtype)
        rates = recording.rates
    remarks = list(recording.remarks) if recording else []
    try:
        whole = replay.run()
    except Exception as error:  # wrong shapes and types show as anything
        if isinstance(replay, ModelReplay) or isinstance(error, InputError | MemoryError):
            raise
        raise InputError(
            f"the recorded calls do not fit the recorded weights ({first_line(error)}): a damaged file"
        ) from error
    if not isfinite(whole.norm) and isinstance(replay, ModelReplay):
        wide = replay.in_float64()
        try:
            whole, replay = wide.run(), wide
            remarks.append("overflows in the model's own type; the numbers are those of float64")
        except RuntimeError as error:
            remarks.append(f"overflows, and cannot be repeated in float64: {error}")
    return _findings(replay, whole, recording, rates, remarks, delta, gates)


def _findings(
    replay: Replay,
    whole: Outcome,
    recording: Recording | None,
    rates: dict[str, float],
    remarks: list[str],
    delta: float,
    gates: float,
) -> Autopsy:
    spectra = exact_spectra({g.passage.weight: g.passage.cell for g in whole.growths})
    layers = [_layer(growth, spectra[growth.passage.weight]) for growth in whole.growths]
    index = max(range(len(layers)), key=lambda i: layers[i].growth)
    cuts = {}
    paths = dict.fromkeys(path for growth in whole.growths for path in growth.passage.cell.paths)
    for name, cut in {**{path: (path,) for path in paths}, "all": tuple(paths)}.items():
        outcome = replay.run(cut)
        cuts[name] = outcome.norm, outcome.growths[index].window(layers[index].lane)[2]
    ring = recording.ring if recording else []
    usual = [s["norm"] for s in ring[:-1] if isfinite(s["norm"])]
    clip = median(usual) if usual else cuts["all"][0]
    rows = tried(replay, whole, rates, delta=delta, gates=gates, clip=clip)
    cause = _cause(replay, whole, recording, layers[index], cuts)
    return Autopsy(
        cause,
        whole.norm,
        whole.objective if replay.has_loss else None,
        layers,
        cuts,
        rows,
        recording.reason if recording else "",
        remarks,
    )


def _cause(
    replay: Replay,
    whole: Outcome,
    recording: Recording | None,
    worst: Layer,
    cuts: dict[str, tuple[float, float]],
) -> Cause:
    inputs = tensors_of((recording.args, recording.kwargs)) if recording else []
    parameters = recording.parameters if recording else replay.parameters
    return (
        causes.not_finite(parameters, inputs)
        or causes.through_time(worst.weight, worst.growth, cuts, whole.norm, worst.sigma)
        or (recording and causes.from_history(recording.ring, recording.names, recording.rates))
        or causes.not_through_time(whole.gradients, worst.growth)
    )


def _layer(growth: Growth, spectrum: dict[str, float]) -> Layer:
    passage, lane = growth.passage, growth.worst_lane()
    first, last, factor = growth.window(lane)
    steps = len(passage.states)
    cell, x, state = passage.of_lane(lane)
    exponents = lyapunov_exponents(
        cell, x, state, count=min(3, cell.state_size), starts=passage.starts_of(lane)
    )
    gradient, factors = growth.gradient[:, lane].tolist(), growth.factor[:, lane].tolist()
    if passage.is_reverse:
        first, last = steps - 1 - first, steps - 1 - last
        gradient, factors = gradient[::-1], factors[::-1]
    radius = spectrum["radius"]
    sigma = {name: value for name, value in spectrum.items() if name != "radius"}
    values = exponents.exponents[0].tolist()
    return Layer(passage.weight, lane, first, last, factor, values, radius, sigma, gradient, factors)
