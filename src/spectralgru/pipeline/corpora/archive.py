"""Zip archives, read in memory: nothing is unpacked to disk."""

import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from spectralgru.errors import InputError

MEMBER_BYTES, BYTES = (
    32 << 20,
    1 << 30,
)  # limits for one member and for all together; the largest score has 3 MB


def read_members(path: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Name and content of every member whose name ends in one of `suffixes`, in the archive's order.

    Raises InputError if the archive is truncated or damaged, or has a member that lies outside its folder or is too
    large when unpacked.
    """
    try:
        yield from members(path.open("rb"), str(path), suffixes)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; fetch it") from None


def members(archive: BinaryIO, name: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """The same for an open archive; error messages call it `name`."""
    remedy = "delete it and fetch it again"
    try:
        with archive, zipfile.ZipFile(archive) as opened:
            infos, total = opened.infolist(), 0
            for info in infos:
                if _escapes(info.filename):
                    raise InputError(
                        f"{name}: member {info.filename!r} lies outside the archive's folder; do not use this archive"
                    )
            for info in infos:
                if not info.filename.endswith(suffixes):
                    continue
                total += info.file_size
                if info.file_size > MEMBER_BYTES or total > BYTES:
                    raise InputError(
                        f"{name}: member {info.filename!r} unpacks to {info.file_size} bytes, all members so far to "
                        f"{total} (limits: {MEMBER_BYTES} and {BYTES}); do not use this archive"
                    )
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise InputError(
                        f"{name}: member {info.filename!r} is neither stored nor deflated; pack it again with zip"
                    )
                yield info.filename, opened.read(info)
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        RuntimeError,
        ValueError,
        OSError,
    ) as error:
        raise InputError(f"{name}: truncated or damaged archive ({error}); {remedy}") from None


def _escapes(name: str) -> bool:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    return posix.is_absolute() or bool(windows.anchor) or ".." in posix.parts or ".." in windows.parts


def pack(members: Mapping[str, bytes]) -> bytes:
    """A zip archive; the same members in the same order give the same bytes on every machine."""
    output = BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)  # dated 1980
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return output.getvalue()
