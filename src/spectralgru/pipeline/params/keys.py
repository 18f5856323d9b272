"""Parameters given as options: `key=value` changes, and a user's own corpora."""

from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from spectralgru.errors import InputError, shown
from spectralgru.pipeline.corpora.own import Definitions, Own
from spectralgru.pipeline.params.fields import explain
from spectralgru.pipeline.strict_yaml import parse_yaml


def with_keys(settings: dict[str, Any], changes: list[str]) -> dict[str, Any]:
    """Apply `key=value` changes (`training.epochs=2`) to nested settings, which are not validated again."""
    for change in changes:
        key, equals, text = change.partition("=")
        change = shown(change)[1:-1]
        node: Any = settings
        *path, last = key.split(".")
        for name in path:
            node = node.get(name) if isinstance(node, dict) else None
        if not equals or not isinstance(node, dict):
            raise InputError(
                f"--set {change}: must be key=value with a key of the settings, e.g. training.epochs=2"
            )
        node[last] = parse_yaml(text, f"--set {change}")
    return settings


def parse_own(name: str, definition: dict[str, Any]) -> Own:
    """Validate the definition of a user's own corpus."""
    adapter: TypeAdapter[dict[Literal["own"], Definitions]] = TypeAdapter(dict[Literal["own"], Definitions])
    try:
        return adapter.validate_python({"own": {name: definition}})["own"][name]
    except ValidationError as error:
        raise InputError(f"--corpus {name}: {explain(error)}") from None
