"""The compiled sweeps: kept for their user, checked before they are loaded, and whatever is wrong is reported."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spectralgru.files import sha256
from spectralgru.pipeline.doctor import diagnose
from spectralgru.recurrent import compiled

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives files to another user")

EVIL = '#include <cstdio>\n__attribute__((constructor)) void run() { std::fclose(std::fopen("%s", "w")); }\n'


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library as the compiler makes it, once for all tests here."""
    path = tmp_path_factory.mktemp("whole") / "sweeps.so"
    subprocess.run(
        ["c++", "-O0", "-std=c++17", "-shared", "-fPIC", *compiled.SOURCES, "-o", path], check=True
    )
    return path


@pytest.fixture
def load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> Iterator[Callable[[], tuple[bool, int]]]:
    """Start anew: whether there is a library, and how often the compiler, quick here, has been asked for one."""
    calls = tmp_path / "calls"
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f'#!/bin/sh\ncase "$*" in *--version) exec c++ --version;; esac\necho x >> {calls}\n'
        f'while [ "$1" != -o ]; do shift; done\ncp {whole} "$2"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", str(compiler))

    def start() -> tuple[bool, int]:
        compiled._loaded.cache_clear()
        found = compiled.library() is not None
        return found, len(calls.read_text().split()) if calls.exists() else 0

    yield start
    compiled._loaded.cache_clear()


def put(path: Path, content: bytes) -> None:
    """In a new file: this process has loaded the old one, whose pages an overwriting would take from it."""
    path.unlink()
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: put(path, path.read_bytes()[:-4000]),
    "empty": lambda path: put(path, b""),
    "one bit": lambda path: put(path, path.read_bytes()[:-1] + b"\x01"),
    "open to all": lambda path: path.chmod(0o777),
    "a link": lambda path: path.rename(path.with_name("kept")) and path.symlink_to("kept"),
}


@pytest.mark.parametrize(
    "damage",
    [*DAMAGE.values(), pytest.param(lambda path: os.chown(path, 12345, 0), marks=as_root)],
    ids=[*DAMAGE, "another's"],
)
def test_a_kept_library_that_is_not_what_was_kept_is_compiled_again(
    tmp_path: Path, load: Callable[[], tuple[bool, int]], damage: Callable[[Path], object]
) -> None:
    assert load() == (True, 1)
    assert load() == (True, 1)
    (path,) = (tmp_path / "cache/spectralgru").iterdir()
    damage(path)
    assert load() == (True, 2)
    assert load() == (True, 2)
    assert path.is_file()
    assert not path.is_symlink()
    assert compiled.remark() == ""


FOLDERS: dict[str, Callable[[Path], object]] = {
    "open to all": lambda folder: folder.chmod(0o777),
    "open to a group": lambda folder: folder.chmod(0o770),
    "a link": lambda folder: folder.rename(folder.with_name("theirs")) and folder.symlink_to("theirs"),
}


@pytest.mark.parametrize(
    "spoil",
    [*FOLDERS.values(), pytest.param(lambda folder: os.chown(folder, 12345, 0), marks=as_root)],
    ids=[*FOLDERS, "another's"],
)
def test_nothing_is_loaded_from_a_folder_in_which_others_write(
    tmp_path: Path, load: Callable[[], tuple[bool, int]], spoil: Callable[[Path], object]
) -> None:
    assert load() == (True, 1)
    folder = tmp_path / "cache/spectralgru"
    (path,) = folder.iterdir()
    (tmp_path / "evil.cpp").write_text(EVIL % (tmp_path / "run"))
    subprocess.run(["c++", "-shared", "-fPIC", tmp_path / "evil.cpp", "-o", tmp_path / "evil.so"], check=True)
    path.unlink()
    shutil.copy(
        tmp_path / "evil.so", planted := path.with_name(f"{path.stem[:32]}-{sha256(tmp_path / 'evil.so')}.so")
    )
    planted.chmod(0o700)
    spoil(folder)
    with pytest.warns(RuntimeWarning, match="compiled anew at every start"):
        assert load() == (True, 2)
    with pytest.warns(RuntimeWarning, match="compiled anew at every start"):
        assert load() == (True, 3)
    assert [p.name for p in folder.iterdir()] == [planted.name]
    assert not (tmp_path / "run").exists()
    assert str(folder) in compiled.remark()


def test_a_compiler_may_have_arguments_and_a_launcher(
    load: Callable[[], tuple[bool, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", f"env 'A=b c' {os.environ['CXX']} -g0")
    assert load() == (True, 1)
    assert compiled.compiler_version()[0].isdigit()


@pytest.mark.parametrize(
    ("compiler", "remark"),
    [
        ("no-such-c++ -m64", "no C++ compiler no-such-c++ -m64"),
        ("'c++", "no C++ compiler 'c++"),
        ("false", "false fails: exit code 1"),
        ("c++ --no-such-option", "no-such-option"),
    ],
)
def test_a_compiler_that_is_none_is_said(
    tmp_path: Path,
    load: Callable[[], tuple[bool, int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    compiler: str,
    remark: str,
) -> None:
    """At first use, and by `spectralgru doctor`."""
    monkeypatch.setenv("CXX", compiler)
    with pytest.warns(RuntimeWarning) as warned:
        assert load() == (False, 0)
    assert remark in str(warned[0].message)
    diagnose(tmp_path, tmp_path / "params.yaml")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "compiled" in line]
    assert line.startswith("absent   compiled sweeps")
    assert remark in line


@pytest.mark.filterwarnings("error")
def test_to_do_without_is_no_fault(
    load: Callable[[], tuple[bool, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "none")
    assert load() == (False, 0)
