"""Makes a recording from a recorder's ring and the calls since the last step."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spectralgru.constraint import SpectralConstraint
from spectralgru.diagnosis.naming import plain_names, unwrapped
from spectralgru.diagnosis.recording import Recording
from spectralgru.diagnosis.replay import ModelReplay
from spectralgru.diagnosis.ring import Ring
from spectralgru.diagnosis.spectra import exact_spectra, model_cells
from spectralgru.diagnosis.taps import ModelCall, weighted
from spectralgru.errors import InputError


def captured(
    verdict: str,
    model: nn.Module,
    names: dict[str, nn.Module],
    ring: Ring,
    calls: list[ModelCall],
    noted: dict[str, Any],
    optimizers: list[Optimizer],
) -> Recording:
    """The state of the training just before the latest step in the ring is taken."""
    parameters = plain_names(model, nn.Module.named_parameters)
    cells, buffers = model_cells(names), plain_names(model, nn.Module.named_buffers)
    call = calls[-1] if calls else ModelCall(model, (), {}, {"cpu": torch.get_rng_state()}, [])
    now = ring.steps[-1]
    optimizer = optimizers[now.optimizer]
    settings = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    state = optimizer.state_dict()["state"]
    weights: dict[str, Tensor] = {name: cell.weight_hh for name, cell in cells.items()}
    recording = Recording(
        verdict,
        now.step,
        [step.plain() for step in ring.steps],
        list(parameters),
        {**weights, **parameters, **buffers},
        exact_spectra(cells),
        rates_of(parameters, optimizers),
        {"class": type(optimizer).__name__, "settings": settings, "state": state},
        next((n for n, m in names.items() if unwrapped(m) is unwrapped(call.root)), ""),
        list(call.args),
        dict(call.kwargs),
        dict(noted),
        list(call.gradients),
        call.random,
        call.autocast,
        call.root.training,
    )
    try:
        _repeat(recording, names, calls)
    except Exception as error:  # a module of the user's own may do anything
        recording.remarks.append(f"the recurrent modules could not be repeated: {error}")
    return recording


def rates_of(parameters: dict[str, Any], optimizers: list[Optimizer]) -> dict[str, float]:
    """The learning rate of each parameter, by name."""
    names = {parameter: name for name, parameter in parameters.items()}
    groups = [group for each in optimizers for group in each.param_groups if "lr" in group]
    return {names[p]: float(group["lr"]) for group in groups for p in group["params"] if p in names}


def _repeat(recording: Recording, names: dict[str, nn.Module], calls: list[ModelCall]) -> None:
    """Run the calls since the last step again, and keep the one whose gradient is largest."""
    if not calls:
        raise InputError("the model was not called: give ExplosionRecorder the module that is")
    worst = -1.0
    for call in calls:
        objective = weighted(call.gradients)
        replay = ModelReplay(
            call.root, call.args, call.kwargs, objective, call.random, autocast=call.autocast
        )
        replay.names = {module: name for name, module in names.items()}
        outcome = replay.run()
        if (norm := outcome.norm if outcome.norm == outcome.norm else float("inf")) <= worst:
            continue
        worst = norm
        recording.calls, recording.seeds = outcome.trace.calls, outcome.seeds
        recording.args, recording.kwargs = list(call.args), dict(call.kwargs)
        recording.output_gradients, recording.random = list(call.gradients), call.random


def last_projections(optimizer: Optimizer) -> dict[str, Any]:
    """Reports of the last projection by the SpectralConstraint attached to the optimiser, if there is one."""
    for hook in optimizer._optimizer_step_post_hooks.values():
        constraint = getattr(hook, "__self__", None)
        if isinstance(constraint, SpectralConstraint):
            return constraint.reports
    return {}
