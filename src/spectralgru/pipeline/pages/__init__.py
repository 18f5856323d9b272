"""Pages for the browser: a template for each, with nothing to fetch."""

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
    """Fill in `template` (`claims.html`), a page or part of one; text is escaped."""
    return _environment().get_template(template).render(values)
