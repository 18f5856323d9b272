"""Two real users on one machine, with one temporary folder and one cache: neither touches the other's files."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spectralgru.recurrent.compiled import SOURCES

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become other users")
ALICE, BOB, ROOT = 23451, 23452, 0
# Privileges go after the imports: the interpreter may lie where these users cannot read.
USE = """
import os, sys
from spectralgru.errors import RunError
from spectralgru.recurrent import compiled
from spectralgru.training.gpus import gpu_slots
user = int(sys.argv[1])
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
try:
    with gpu_slots(1, print) as ids:
        print("device", *ids)
        print("library", compiled.library() is not None, flush=True)
        if "hold" in sys.argv:
            sys.stdin.read()
except RunError as error:
    print("refused", error)
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder in which everybody may make files and nobody may remove another's, as /tmp."""
    folder = Path(tempfile.mkdtemp(prefix="two-users-"))
    for name in ("tmp", "cache"):
        (folder / name).mkdir()
        (folder / name).chmod(0o1777)
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def start(user: int, shared: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "0",
        "TMPDIR": str(shared / "tmp"),
        "XDG_CACHE_HOME": str(shared / "cache"),
        "CXX": str(shared / "compiler"),
    }
    command = [sys.executable, "-W", "ignore", "-c", USE, str(user), *arguments]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    )


def use(user: int, shared: Path) -> list[str]:
    process = start(user, shared)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return output.splitlines()


def belongings(shared: Path, user: int) -> dict[str, tuple[object, ...]]:
    """Every file and folder of the user's, with all that a stranger could have changed, and whether files were read."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(shared.rglob("*")):
        about = path.lstat()
        if about.st_uid == user:
            content, read = None, None
            if path.is_file() and not path.is_symlink():
                content, read = path.read_bytes(), about.st_atime_ns > 1000
                os.utime(path, ns=(0, about.st_mtime_ns))
            found[str(path)] = (about.st_mode, about.st_ino, about.st_nlink, about.st_mtime_ns, content, read)
    return found


@pytest.fixture
def compiler(shared: Path) -> None:
    """A quick one: it copies a library that was compiled once."""
    library = shared / "sweeps.so"
    subprocess.run(["c++", "-O0", "-std=c++17", "-shared", "-fPIC", *SOURCES, "-o", library], check=True)
    (shared / "compiler").write_text(
        '#!/bin/sh\ncase "$*" in *--version) exec c++ --version;; esac\n'
        f'while [ "$1" != -o ]; do shift; done\ncp {library} "$2"\n'
    )
    (shared / "compiler").chmod(0o755)


@pytest.mark.usefixtures("compiler")
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_locks_and_caches_of_one_user_are_not_the_others(shared: Path) -> None:
    """Bob, and then root, who could read and remove everything, while Alice holds a device."""
    alice = start(ALICE, shared, "hold")
    assert alice.stdout is not None
    assert [alice.stdout.readline(), alice.stdout.readline()] == ["device 0\n", "library True\n"]
    belongings(shared, ALICE)  # marks all as not read
    before = belongings(shared, ALICE)
    assert len(before) == 4  # two folders, a lock and a library
    for user in (BOB, ROOT):
        assert use(user, shared) == ["device 0", "library True"]
        assert belongings(shared, ALICE) == before
        (lock,) = (shared / "tmp" / f"spectralgru-gpus-{user}").iterdir()
        assert lock.lstat().st_uid == user
    alice.communicate(timeout=60)
    assert alice.returncode == 0


@pytest.mark.parametrize("trap", ["link", "folder"])
@pytest.mark.usefixtures("compiler")
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_what_one_user_planted_for_another_stops_with_one_line(shared: Path, trap: str) -> None:
    assert use(ALICE, shared) == ["device 0", "library True"]
    own = shared / "tmp" / f"spectralgru-gpus-{ALICE}"
    place = shared / "tmp" / f"spectralgru-gpus-{ROOT}"
    if trap == "link":
        place.symlink_to(own)
    else:
        place.mkdir()
        place.chmod(0o777)
    os.chown(place, ALICE, ALICE, follow_symlinks=False)
    belongings(shared, ALICE)
    before = belongings(shared, ALICE)
    (line,) = use(ROOT, shared)
    assert line.startswith(f"refused {place}: ")
    assert belongings(shared, ALICE) == before
