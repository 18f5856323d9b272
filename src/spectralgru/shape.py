"""Checks whether values read from a document, JSON or a recording, have the expected types."""

from sys import float_info
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

from spectralgru.errors import shown


def check_fields(record: object, finite: bool = True) -> None:
    """Raise ValueError for the first field of a dataclass, filled from a document, whose value has the wrong type."""
    for name, kind in get_type_hints(type(record)).items():
        if not fits(value := getattr(record, name), kind, finite):
            raise ValueError(f"{name} is {shown(value)}")


def fits(value: object, kind: Any, finite: bool = True) -> bool:
    """Whether a value of a document fits this annotation. Whole numbers fit float; NaN does only if not `finite`."""
    origin, of = get_origin(kind), get_args(kind)
    if origin is list:
        return isinstance(value, list) and all(fits(item, of[0], finite) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            fits(key, of[0]) and fits(item, of[1], finite) for key, item in value.items()
        )
    if is_typeddict(kind):
        keys = get_type_hints(kind)
        return isinstance(value, dict) and all(k in value and fits(value[k], keys[k], finite) for k in keys)
    if origin is Literal:
        return isinstance(value, str) and value in of
    if origin is UnionType:
        return any(fits(value, choice, finite) for choice in of)
    if kind is float and not isinstance(value, bool) and isinstance(value, int | float):
        return abs(value) <= float_info.max or (not finite and isinstance(value, float))
    return kind is Any or type(value) is kind
