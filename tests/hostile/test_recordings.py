"""Recordings of an explosion with any part edited: analysed all the same, or refused in one line."""

import math
import random
import sys
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from planted import Net, bad_targets, trained

from spectralgru.diagnosis.autopsy import autopsy
from spectralgru.errors import InputError

GONE = object()
EDITS = (None, True, -1, 2**63, 10**400, math.nan, math.inf, "", "x", [], {}, (1,), torch.ones(2), GONE)


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> dict[str, Any]:
    content = torch.load(trained(tmp_path_factory.mktemp("recorded"), "GRU", bad_targets)[2].files[0])
    return content | {"ring": content["ring"][-4:]}


def nodes(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything in the tree; of a list only to its ends."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        if isinstance(tree, dict) or key in (0, len(tree) - 1):
            yield (*path, key)
            yield from nodes(value, (*path, key))


def edited(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy in which what stands at `path` is another value, or gone."""
    tree, (key, *rest) = copy(tree), path
    if rest:
        tree[key] = edited(tree[key], tuple(rest), value)
    elif value is GONE:
        del tree[key]
    else:
        tree[key] = value
    return tree


def tensors_like(tensor: Tensor) -> list[Tensor]:
    """Other tensors in the place of one."""
    other = [
        tensor[..., :-1],
        tensor.unsqueeze(0),
        tensor.flatten(),
        tensor.float() * torch.nan,
        tensor.int(),
    ]
    return [t.clone() for t in (*other, tensor.bool(), tensor.double(), tensor.expand(2, *tensor.shape))]


def fault_of(content: dict[str, Any], path: Path) -> str | None:
    """What comes of a recording, unless it is findings or one line."""
    torch.save(content, path)
    try:
        str(autopsy(None, path))
    except InputError as error:
        return None if "\n" not in str(error) else f"several lines: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def test_an_edited_recording_is_read_or_refused(content, tmp_path):
    rng, faults = random.Random(0), []
    assert fault_of(content, tmp_path / "whole.pt") is None
    for path in nodes(content):
        here = at(content, path)
        others = tensors_like(here) if isinstance(here, Tensor) and here.dim() else []
        for value in rng.sample([*EDITS, *others], 4):
            if fault := fault_of(edited(content, path, value), tmp_path / "edited.pt"):
                faults.append(f"{path} = {value!r:.60}: {fault}")
    assert not faults


@pytest.mark.parametrize("edit", [{"root": "other"}, {"autocast": ["cpu"]}, {"autocast": ["cpu", "float7"]}])
def test_a_recording_of_another_module_or_type_is_refused_by_the_model(content, tmp_path, edit):
    torch.save(content | edit, tmp_path / "edited.pt")
    with pytest.raises(InputError, match="give the recorded model, or copy the recording again"):
        autopsy(Net("GRU"), tmp_path / "edited.pt")


def test_a_recording_of_weights_that_were_not_finite_says_so(tmp_path):
    def plant(model, *_):
        model.rnn.bias_ih_l0[0] = torch.nan

    (file,) = trained(tmp_path, "GRU", plant)[2].files
    assert autopsy(None, file).cause.kind == "weights"
