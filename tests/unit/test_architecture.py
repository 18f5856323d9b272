"""docs/architecture.md and the tree name the same modules and folders."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "src/spectralgru"
PAGE = (REPOSITORY / "docs/architecture.md").read_text()
FOLDERS = sorted(path.parent for path in SOURCE.rglob("*.py") if path.name == "__init__.py")[1:]
FLAT = [SOURCE, *(SOURCE / name for name in ("recurrent", "projection", "diagnosis", "training", "pipeline"))]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_folder_is_named(folder: Path):
    assert re.search(rf"\b{folder.name}/", PAGE)


@pytest.mark.parametrize("folder", FLAT, ids=lambda path: path.name)
def test_every_module_of_the_layers_is_named(folder: Path):
    modules = [path.name for path in folder.glob("*.py") if not path.name.startswith("__")]
    assert [
        name for name in modules if not re.search(rf"[`/]({name}|{name[:-3]})\b|\b{name[:-3]}  ", PAGE)
    ] == []


def test_every_name_is_of_a_module_or_folder():
    there = {path.name for path in SOURCE.rglob("*")} | {path.name for path in REPOSITORY.iterdir()}
    named = {Path(name).name for name in re.findall(r"`([a-z_/]+(?:\.py|\.cpp|/))`", PAGE)}
    assert sorted(named - there) == []
