"""The command that takes a recorded explosion apart."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from spectralgru.errors import ExpectedError, InputError


def autopsy(
    file: Annotated[Path, typer.Argument(help="what ExplosionRecorder wrote")],
    model: Annotated[
        str | None,
        typer.Option(
            help="also repeat the whole model: MODULE:FUNCTION or FILE.py:FUNCTION, which returns the model, or model "
            "and loss(output, **noted); this runs that code"
        ),
    ] = None,
    delta: Annotated[float, typer.Option(help="of the constraint to try")] = 0.2,
    gates: Annotated[float, typer.Option(help="bound of the gates to try")] = 2.0,
    figure: Annotated[Path | None, typer.Option(help="default: FILE with .svg")] = None,
) -> None:
    """Say why a recorded training exploded: where the gradient grew, through which path, what helps."""
    from spectralgru.diagnosis.autopsy import autopsy as examine

    network, loss = None, None
    guarded: AbstractContextManager[None] = nullcontext()
    if model is not None:
        with _code_of(f"--model {model}"):
            network, loss = _made(model)
        guarded = _code_of(f"--model {model} on the batch of {file}")
    with guarded:
        found = examine(network, file, loss, delta=delta, gates=gates)
    typer.echo(str(found))
    found.figure(figure := figure or file.with_suffix(".svg"))
    typer.echo(f"figure: {figure}")


@contextmanager
def _code_of(source: str) -> Iterator[None]:
    """Report any error of the code behind `--model` as an error of `source`."""
    try:
        yield
    except ExpectedError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{source}: {type(error).__name__}: {error}; --debug shows where") from error


def _made(source: str) -> tuple[Any, Callable[..., Any] | None]:
    """The model and the loss that `--model` names."""
    from torch import nn

    place, _, name = source.rpartition(":")
    if not place or not name:
        raise InputError(f"--model {source}: expected MODULE:FUNCTION or FILE.py:FUNCTION")
    made = getattr(_module(place), name)()
    model, loss = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"--model {source}: returned a {type(model).__name__}; expected a model, or model and loss"
        )
    return model, loss


def _module(place: str) -> Any:
    if not place.endswith(".py"):
        sys.path.insert(0, "")
        return importlib.import_module(place)
    spec = importlib.util.spec_from_file_location(Path(place).stem, place)
    if spec is None or spec.loader is None:
        raise InputError(f"{place}: cannot be read as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(Path(place).parent))
    spec.loader.exec_module(module)
    return module
