"""The reference page names every public name, and their docstrings say what each parameter and field is."""

import dataclasses
import re
from pathlib import Path
from pydoc import locate

import griffe
import pytest

import spectralgru

ROOT = Path(__file__).parents[2]
NAMES = re.findall(r"^::: (\S+)", (ROOT / "docs/reference.md").read_text(), re.MULTILINE)
LOADER = griffe.GriffeLoader(search_paths=[str(ROOT / "src")])
LOADER.load("spectralgru")


def described(item, kind):
    """The names that the docstring describes in sections of a kind."""
    sections = item.docstring.parse("google") if item.docstring else []
    return {each.name for section in sections if section.kind.value == kind for each in section.value}


def test_every_public_name_is_on_the_page():
    assert {f"spectralgru.{name}" for name in spectralgru.__all__} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_and_field_is_described(name):
    item = LOADER.modules_collection[name]
    item = item.final_target if item.is_alias else item
    assert item.docstring
    python = locate(name)
    fields = (
        {field.name for field in dataclasses.fields(python)} if dataclasses.is_dataclass(python) else set()
    )
    fields |= set(getattr(python, "_fields", ()))
    assert fields <= described(item, "attributes")
    for function in item.members.values() if item.is_class else [item]:
        public = not function.name.startswith("_") or (function.name == "__init__" and not fields)
        if function.is_function and public:
            parameters = {parameter.name for parameter in function.parameters} - {"self", "cls"}
            assert parameters <= described(function, "parameters"), function.path
