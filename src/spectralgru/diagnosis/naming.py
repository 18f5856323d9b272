"""Names of parameters and buffers that do not depend on DDP or torch.compile."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from spectralgru.projection.blocks import WRAPPERS, named_modules


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, DataParallel and torch.compile."""
    while True:
        inner: Any = model.module if isinstance(model, WRAPPERS) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def plain_names(model: nn.Module, of: Callable[[nn.Module], Iterator[tuple[str, Any]]]) -> dict[str, Any]:
    """Parameters or buffers by name, without the levels of DDP and torch.compile."""
    inner = unwrapped(model)
    plain = plain_names_of(inner, {module: name for _, name, module in named_modules(model)})
    return {plain[name]: tensor for name, tensor in of(inner)}


def plain_names_of(inner: nn.Module, modules: Mapping[nn.Module, str]) -> dict[str, str]:
    """The plain name of every parameter and buffer, by its name in `inner`."""
    top, plain = modules[inner], {}
    for name in dict([*inner.named_parameters(), *inner.named_buffers()]):
        path, _, leaf = name.rpartition(".")
        where = modules[inner.get_submodule(path)].removeprefix(top).removeprefix(".")
        plain[name] = f"{where}.{leaf}".removeprefix(".")
    return plain
