"""The project's own data files: inside an installed package, or beside src/ in a checkout."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def resource(name: str) -> Path:
    """Path of `resources/<name>`; it may be missing in a damaged checkout."""
    installed = PACKAGE / "resources" / name
    return installed if installed.exists() else PACKAGE.parents[1] / "resources" / name
