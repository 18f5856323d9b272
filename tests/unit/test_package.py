"""The wheel: what people install, without the checkout beside it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
USE = """
from spectralgru.pipeline.corpora.nottingham import SPLIT_TABLE
from spectralgru.recurrent.compiled import SOURCE
from spectralgru.resources import PACKAGE
from spectralgru.pipeline.results.paper import load_paper
assert PACKAGE.parent.name == "installed", PACKAGE
assert "ptb" in load_paper().tables
assert SPLIT_TABLE.is_relative_to(PACKAGE) and SPLIT_TABLE.exists()
assert SOURCE.is_relative_to(PACKAGE) and SOURCE.exists()
"""


def test_a_wheel_brings_its_data_files(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    subprocess.run([sys.executable, "-c", USE], check=True, env=environment, cwd=tmp_path)
