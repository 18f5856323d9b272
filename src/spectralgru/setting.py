"""A setting: a method and its value, and the name that paths, wildcards and tables give it."""

import math
from contextlib import suppress
from typing import Literal, NamedTuple, cast, get_args

from spectralgru.errors import InputError

Method = Literal[
    "constraint", "clipping", "none",
    "autoclip", "zclip", "spectral_norm", "orthogonal", "weight_decay", "flossing",
]  # fmt: skip


def number(value: float) -> str:
    """The shortest text that gives the value back exactly: `0.2`, `5`, `0.2000001`."""
    return repr(float(value)).removesuffix(".0")


class Setting(NamedTuple):
    """A method and its value.

    Attributes:
        method: "constraint", "clipping", "none", or a further one of `beyond`.
        value: delta, threshold or strength: as in `Run`.
    """

    method: Method
    value: float | None = None

    @property
    def name(self) -> str:
        """As in paths and wildcards: `constraint-0.2`, `clipping-5`, `none`. Distinct settings have distinct names."""
        return self.method if self.value is None else f"{self.method}-{number(self.value)}"

    @classmethod
    def parse(cls, name: str) -> "Setting":
        """The setting of a name.

        Args:
            name: as in paths, `constraint-0.2`.

        Raises:
            InputError: no setting has this name.
        """
        method, dash, text = name.partition("-")
        with suppress(ValueError):
            setting = cls(cast(Method, method), float(text) if dash else None)
            if method in get_args(Method) and setting.name == name and 0 <= (setting.value or 0) < math.inf:
                return setting
        raise InputError(f"{name}: names no setting; write one like constraint-0.2, clipping-5 or none")
