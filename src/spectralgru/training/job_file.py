"""A job as JSON, checked against the types and bounds in `settings` with the standard library alone."""

import json
import operator
import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from spectralgru.errors import InputError, shown
from spectralgru.training.settings import VALUES, Job

BYTES = 2**24
METHODS = (*VALUES, "none")  # the ones this trainer knows
BOUNDS = {
    "ge": (operator.ge, "at least"),
    "gt": (operator.gt, "greater than"),
    "lt": (operator.lt, "less than"),
}
REMEDY = "make it with `spectralgru job`"


def read_job(path: Path) -> Job:
    """Read a job file. Raises InputError if there is none, or for the first error in it."""
    try:
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
        if len(content) > BYTES:
            raise InputError(f"{path}: longer than {BYTES:,} bytes; {REMEDY}")
        value = json.loads(content.decode(), object_pairs_hook=_distinct)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {REMEDY}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a job, not even JSON ({shown(str(error))[1:-1]}); {REMEDY}") from None
    try:
        return job_from_dict(value)
    except InputError as error:
        raise InputError(f"{path}: not a job: {error}; correct it, or {REMEDY}") from None


def job_from_dict(value: object) -> Job:
    """The job whose `dataclasses.asdict` is `value`. Raises InputError for the first wrong key."""
    job: Job = _checked(Job, value, "the job", {})
    _require(bool(job.replicas), "replicas", [], "hold one run or more")
    runs = set()
    for at, replica in enumerate(job.replicas):
        _require(
            replica.method in METHODS,
            f"replicas.{at}.method",
            replica.method,
            f"be one of {', '.join(METHODS)}",
        )
        bounds = VALUES.get(replica.method)
        kind = type(None) if bounds is None else float
        _checked(kind, replica.value, f"replicas.{at}.value", bounds or {})
        run = f"{replica.setting} seed {replica.seed}"
        if run in runs:
            raise InputError(f"{run} appears twice among the replicas; remove one")
        runs.add(run)
    return job


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"key {twice} appears twice")
    return found


def _require(good: bool, key: str, value: object, rule: str) -> None:
    if not good:
        raise InputError(f"{key} is {shown(value)}: must {rule}")


def _checked(kind: Any, value: Any, key: str, bounds: Mapping[str, Any]) -> Any:
    """A value of a JSON document, checked and converted to `kind`, the annotation of a field in `settings`."""
    origin, of = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _object(kind, value, key)
    if origin is UnionType:  # of a type and None
        return None if value is None else _checked(of[0], value, key, bounds)
    if origin is tuple:
        _require(isinstance(value, list), key, value, "be a list")
        return tuple(_checked(of[0], item, f"{key}.{at}", bounds) for at, item in enumerate(value))
    if origin is Literal:
        _require(isinstance(value, str) and value in of, key, value, f"be one of {', '.join(of)}")
    elif kind is str:
        good = isinstance(value, str) and re.fullmatch(bounds["pattern"], value) is not None
        _require(good, key, value, "be a name of letters, digits, _, . and -")
    elif kind is int:
        _require(type(value) is int, key, value, "be a whole number")
    elif kind is float:
        _require(
            type(value) in (int, float) and abs(value) <= sys.float_info.max, key, value, "be a finite number"
        )
    else:
        _require(value is None, key, value, "be null")
    for name, (holds, words) in BOUNDS.items():
        if name in bounds:
            _require(holds(value, bounds[name]), key, value, f"be {words} {bounds[name]}")
    return float(value) if kind is float else value


def _object(kind: Any, value: object, key: str) -> Any:
    _require(isinstance(value, dict), key, value, "be an object")
    assert isinstance(value, dict)
    types, known = get_type_hints(kind), {field.name: field for field in fields(kind)}
    inside = "" if kind is Job else f"{key}."
    for name in value:
        if name not in known:
            raise InputError(f"unknown key {inside}{shown(name)}")
    for name, field in known.items():
        if name not in value and field.default is MISSING:
            raise InputError(f"key {inside}{name} is missing")
    return kind(
        **{n: _checked(types[n], value[n], f"{inside}{n}", known[n].metadata) for n in known if n in value}
    )
