"""The file of a flight recorder: written whole, and read without executing anything in it."""

import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path
from shutil import disk_usage
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from spectralgru.diagnosis.ring import PlainStep
from spectralgru.diagnosis.unrolled import Call
from spectralgru.errors import InputError, RunError, shown
from spectralgru.files import atomic_path
from spectralgru.shape import check_fields, fits

FORMAT, VERSION = "spectralgru explosion", 1
_PACKED = "packed sequence"
_LEFT_OUT = "left out: a "


@dataclass
class Recording:
    """An explosion: the step itself, what went into it, and what was measured until then.

    Attributes:
        reason: why it was written.
        step: number of steps taken before this one.
        ring: the last steps, oldest first; this one is the last.
        names: the parameters, in the order of the ring's norms.
        parameters: with buffers, before the step.
        spectra: of each recurrent weight: sigma_1 of its blocks, radius at the origin.
        rates: learning rate of each parameter.
        optimizer: class, settings and, if there was room, state.
        root: which module was called; "" is the model itself.
        args: what it was called with: the batch.
        kwargs: the same, by name.
        noted: what `note` was given, for example targets.
        output_gradients: dL/d output; None where there was none.
        random: states of the generators before the forward pass.
        autocast: device and type, or nothing.
        training: whether the model was in training mode.
        calls: of the recurrent modules; empty if they could not be repeated.
        seeds: the gradients that came back to each call.
        remarks: what is missing, and why.
    """

    reason: str
    step: int
    ring: list[PlainStep]
    names: list[str]
    parameters: dict[str, Tensor]
    spectra: dict[str, dict[str, float]]
    rates: dict[str, float]
    optimizer: dict[str, Any]
    root: str
    args: list[Any]
    kwargs: dict[str, Any]
    noted: dict[str, Any]
    output_gradients: list[Any]
    random: dict[str, Tensor]
    autocast: list[str]
    training: bool
    calls: list[Call] = field(default_factory=list)
    seeds: list[list[Tensor]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def write(self, path: Path, max_bytes: int) -> None:
        """Write the file; leave out the optimiser's state, then the batch, if it would exceed `max_bytes`.

        Args:
            path: its folder is created if missing.
            max_bytes: largest size.

        Raises:
            RunError: the file would still be too large, or fill the disk.
        """
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        content["calls"] = [dict(vars(call)) for call in self.calls]
        content = to_plain(content) | {"format": FORMAT, "version": VERSION}
        for name, rest in (("optimizer", {}), ("args", []), ("kwargs", {}), ("noted", {})):
            if _size(content) > max_bytes:
                content[name] = rest
                content["remarks"] = [*content["remarks"], f"{name}: left out, the file would be too large"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if (size := _size(content)) > max_bytes:
            raise RunError(
                f"a recording of {size / 1e6:.0f} MB is above max_bytes={max_bytes}: not written; raise it"
            )
        if size > disk_usage(path.parent).free / 2:
            raise RunError(
                f"{path.parent}: a recording of {size / 1e6:.0f} MB would fill the disk: not written"
            )
        with atomic_path(path) as temporary:
            torch.save(content, temporary)

    @classmethod
    def read(cls, path: Path | str) -> "Recording":
        """Read a file; nothing in it is executed.

        Args:
            path: what ExplosionRecorder wrote.

        Raises:
            InputError: not a recording, a damaged one, or one of another version.
        """
        remedy = "name a file that ExplosionRecorder wrote, or copy it again"
        if (place := Path(path)).exists() and not place.is_file():
            raise InputError(f"{path}: not a file; {remedy}")
        with place.open("rb") as file, warnings.catch_warnings(action="ignore"):
            try:
                content = torch.load(file, map_location="cpu", weights_only=True)
            except Exception:  # a damaged file can raise anything
                raise InputError(f"{path}: not a recording, or a damaged one; {remedy}") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{path}: a PyTorch file, but not a recording of an explosion; {remedy}")
        if not fits(version := content.get("version"), int) or version != VERSION:
            raise InputError(
                f"{path}: its version is {shown(version)}, this spectralgru reads {VERSION}: install the one that"
                " wrote it"
            )
        try:
            del content["format"], content["version"]
            content["calls"] = [Call(**call) for call in content["calls"]]
            recording = cls(**content)
            for record in (recording, *recording.calls):
                check_fields(record, finite=False)
            recording.check_sizes()
        except (TypeError, KeyError, ValueError) as error:
            raise InputError(f"{path}: a damaged recording ({first_line(error)}); {remedy}") from None
        return recording

    def check_sizes(self) -> None:
        """Raise ValueError if a part is missing or two parts do not match."""
        norms = [len(norms) for step in self.ring for norms in (step["gradients"], step["weights"])]
        if not (self.ring and self.names) or len(self.seeds) != len(self.calls):
            raise ValueError("a part of it is missing")
        if set(norms) != {len(self.names)}:
            raise ValueError("ring and names differ in their number of parameters")
        for call in self.calls:
            shape, passages = call.state.shape, call.layers * call.directions
            fit = len(shape) == call.x.dim() in (3, 4) and shape[-3] == passages
            if not fit or call.directions not in (1, 2):
                raise ValueError(f"the state of {shown(call.module)} has the shape {list(shape)}")


def to_plain(tree: Any) -> Any:
    """The tree in what `torch.load(weights_only=True)` accepts: CPU tensors, numbers, texts, lists and dicts."""
    if isinstance(tree, Tensor):
        return tree.detach().cpu().clone()  # of a view, torch would save the whole storage
    if isinstance(tree, PackedSequence):
        return {_PACKED: [to_plain(part) for part in tree]}
    if isinstance(tree, dict):
        return {to_plain(key): to_plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [to_plain(value) for value in tree] if isinstance(tree, list) else tuple(map(to_plain, tree))
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    return f"{_LEFT_OUT}{type(tree).__name__}"


def from_plain(tree: Any) -> Any:
    """The inverse of `to_plain`."""
    if isinstance(tree, dict) and tree.keys() == {_PACKED}:
        return PackedSequence(*tree[_PACKED])
    if isinstance(tree, dict):
        return {key: from_plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map(from_plain, tree))
    return tree


def left_out(tree: Any) -> list[str]:
    """The parts of a recorded tree that could not be kept."""
    return [t for t in pytree.tree_leaves(tree) if isinstance(t, str) and t.startswith(_LEFT_OUT)]


def _size(content: dict[str, Any]) -> int:
    tensors = (t for t in pytree.tree_leaves(content) if isinstance(t, Tensor))
    return sum(t.numel() * t.element_size() for t in tensors)


def first_line(error: Exception) -> str:
    """The first line of an error, for use inside a message."""
    return str(error).split("\n")[0][:120] or type(error).__name__
