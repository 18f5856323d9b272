"""Whether what stands in a JSON document is of a type."""

import math
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from spectralgru.errors import shown


def check_fields(record: object) -> None:
    """Raise ValueError for the first field of a dataclass, made of a JSON document, that is not of its type."""
    for name, kind in get_type_hints(type(record)).items():
        if not fits(value := getattr(record, name), kind):
            raise ValueError(f"{name} is {shown(value)}")


def fits(value: object, kind: Any) -> bool:
    """Whether a value of a JSON document is of this annotation; a whole number is a float too, NaN is none."""
    origin, of = get_origin(kind), get_args(kind)
    if origin is list:
        return isinstance(value, list) and all(fits(item, of[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, of[1]) for item in value.values())
    if origin is Literal:
        return isinstance(value, str) and value in of
    if origin is UnionType:
        return any(fits(value, choice) for choice in of)
    if kind is float:
        return type(value) is int or (type(value) is float and math.isfinite(value))
    return kind is Any or type(value) is kind
