"""Turns the arguments of an autopsy into a replay."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from spectralgru.diagnosis.naming import plain_names, unwrapped
from spectralgru.diagnosis.recording import Recording, from_plain, left_out
from spectralgru.diagnosis.replay import FiledReplay, ModelReplay, Replay
from spectralgru.diagnosis.taps import weighted
from spectralgru.errors import InputError


def replay_of(
    model: nn.Module | None, recording: Recording, loss: Callable[..., Tensor] | None, dtype: Any
) -> Replay:
    """A replay of the recorded step, by the model or, without one, by its recurrent modules; raises as `autopsy`."""
    if model is None:
        if not recording.calls:
            raise InputError(
                f"the recording holds no recurrent modules ({'; '.join(recording.remarks)}): give the model as well"
            )
        return FiledReplay(recording.calls, recording.seeds, recording.parameters)
    if gone := left_out([recording.args, recording.kwargs]):
        raise InputError(f"the recorded batch is not whole ({gone[0]}): leave the model out")
    mine, missing = plain_names(model, nn.Module.named_parameters), []
    for name, parameter in mine.items():
        kept = recording.parameters.get(name)
        if kept is None or kept.shape != parameter.shape:
            missing.append(name)
    if missing:
        raise InputError(
            f"the model is not the recorded one: {missing[0]} differs in name or shape; make it with the same settings"
        )
    args, kwargs = tuple(from_plain(recording.args)), from_plain(recording.kwargs)
    noted = from_plain(recording.noted)
    objective = (
        weighted(recording.output_gradients) if loss is None else (lambda output: loss(output, **noted))
    )
    prefix = f"{recording.root}." if recording.root else ""
    parameters = {n.removeprefix(prefix): t for n, t in recording.parameters.items()}
    given = args, kwargs, objective, recording.random, dtype, recording.autocast, parameters
    try:
        replay = ModelReplay(unwrapped(model).get_submodule(recording.root), *given)
    except (AttributeError, IndexError) as error:
        raise InputError(f"{error}: give the recorded model, or copy the recording again") from None
    replay.has_loss = loss is not None
    return replay


def arguments_of(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A batch as positional and named arguments of the model."""
    if isinstance(batch, dict):
        return (), batch
    return tuple(batch) if type(batch) in (tuple, list) else (batch,), {}


def loss_of(output: Any) -> Any:
    """The loss in a model's output, or the output itself."""
    return (
        output["loss"] if isinstance(output, dict) and "loss" in output else getattr(output, "loss", output)
    )
