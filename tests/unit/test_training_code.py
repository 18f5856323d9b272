import subprocess
import sys
from pathlib import Path

import spectralgru
from spectralgru.training.settings import SOURCES

PACKAGE = Path(spectralgru.__file__).parent
# Read and written around a training; what they hold does not decide what it computes.
AROUND = {
    "__init__.py",
    "diagnosis/__init__.py",
    "errors.py",
    "files.py",
    "records.py",
    "resources.py",
    "seal.py",
    "setting.py",
    "shape.py",
    "weights_file.py",
}


def test_every_module_that_a_training_uses_is_part_of_its_key():
    program = "import sys, spectralgru.training.train; print(*(m.__file__ for n, m in sys.modules.items() "
    program += "if n.startswith('spectralgru') and m.__file__), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    used = {Path(line).relative_to(PACKAGE).as_posix() for line in done.stdout.splitlines()}
    hashed = {path.relative_to(PACKAGE).as_posix() for pattern in SOURCES for path in PACKAGE.glob(pattern)}
    assert used - hashed <= AROUND
    assert "projection/tracked.py" in used
