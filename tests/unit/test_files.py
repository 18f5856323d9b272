"""Outputs of every kind: regular files, links, devices, FIFOs, directories, names of every length."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from spectralgru.files import atomic_path, sha256_of_all, write_json, write_text

NULL, FULL = os.makedev(1, 3), os.makedev(1, 7)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def device(path: Path, number: int) -> Path:
    """A device of the test's own: never try this on the machine's."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, number)
    except PermissionError:
        pytest.skip("needs root, to make a device")
    return path


def test_a_device_is_written_to_and_stays(tmp_path):
    null = device(tmp_path / "null", NULL)
    write_text(null, "nothing comes of it")
    assert stat.S_ISCHR(null.stat().st_mode)
    assert null.stat().st_rdev == NULL
    assert names(tmp_path) == ["null"]


def test_a_full_device_is_an_error_and_stays(tmp_path):
    full = device(tmp_path / "full", FULL)
    (tmp_path / "link").symlink_to(full)
    for path in (full, tmp_path / "link"):
        with pytest.raises(OSError, match="No space left") as error:
            write_text(path, "x")
        assert error.value.filename == str(path)
    assert full.stat().st_rdev == FULL
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path) == ["full", "link"]


def test_a_fifo_is_written_to_and_stays(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="nobody reads it"):
        write_text(fifo, "for nobody")
    text, received = "é" * 200_000, []  # more than a pipe holds
    both = os.open(fifo, os.O_RDWR)  # so that the reader neither waits for a writer nor sees an end too early

    def read() -> None:
        with fifo.open("rb") as file:
            received.append(file.read(len(text.encode())).decode())

    thread = threading.Thread(target=read)
    thread.start()
    write_text(fifo, text)
    thread.join()
    os.close(both)
    assert received == [text]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    target = tmp_path / "elsewhere" / "target.json"
    target.parent.mkdir()
    target.write_text("old")
    target.chmod(0o640)
    first, second = tmp_path / "first", tmp_path / "second"
    first.symlink_to("elsewhere/target.json")
    second.symlink_to(first)
    number = target.stat().st_ino
    write_json(second, {"new": 1})
    assert json.loads(target.read_text()) == {"new": 1}
    assert first.is_symlink()
    assert second.is_symlink()
    assert target.stat().st_ino != number  # in one step, not truncated and written
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert names(target.parent) == ["target.json"]
    target.unlink()
    write_text(second, "again")  # a link to nothing
    assert target.read_text() == "again"


def test_a_link_to_a_write_protected_file_becomes_a_file_of_its_own(tmp_path):
    cached, path = tmp_path / "cached", tmp_path / "path"  # as DVC links to its cache
    cached.write_text("of everyone")
    cached.chmod(0o444)
    path.symlink_to(cached)
    write_text(path, "mine")
    assert cached.read_text() == "of everyone"
    assert path.read_text() == "mine"
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o200


def test_a_directory_and_a_ring_of_links_are_errors_and_stay(tmp_path):
    (tmp_path / "folder" / "kept").mkdir(parents=True)
    (tmp_path / "ring").symlink_to("ring")
    for name, reason in (("folder", "is a directory"), ("ring", "symbolic links")):
        with pytest.raises(OSError, match=reason):
            write_text(tmp_path / name, "x")
    assert (tmp_path / "ring").is_symlink()
    assert names(tmp_path) == ["folder", "ring"]


def test_the_longest_name_is_written_and_a_longer_one_an_error(tmp_path):
    write_text(tmp_path / ("x" * 251 + ".txt"), "x")
    write_text(tmp_path / ("é" * 127), "x")
    write_text(tmp_path / ("x." + "y" * 253), "x")
    with pytest.raises(OSError, match="File name too long"):
        write_text(tmp_path / ("x" * 256), "x")
    assert len(names(tmp_path)) == 3


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text(str(1 / len(temporary.read_bytes())))
    assert path.read_text() == "1\n"
    assert names(tmp_path) == ["a.json"]


def test_a_folder_that_matches_a_pattern_is_no_file_to_hash(tmp_path):
    (tmp_path / "a.py").write_text("a")
    before = sha256_of_all(tmp_path, ["*"])
    (tmp_path / "__pycache__").mkdir()
    assert sha256_of_all(tmp_path, ["*"]) == before
