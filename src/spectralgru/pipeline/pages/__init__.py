"""Pages for the browser: one template each, with nothing that has to be fetched."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("spectralgru.pipeline", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> str:
    """The page or part of a page `template` (`claims.html`) with these values; text is escaped."""
    return _environment().get_template(template).render(values)
