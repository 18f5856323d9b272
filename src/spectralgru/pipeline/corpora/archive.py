"""Zip archives, read in memory: nothing is unpacked to disk."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath

from spectralgru.errors import InputError


def read_members(path: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Name and content of every member whose name ends in one of `suffixes`, in the archive's order.

    Raises InputError for an archive that is truncated or damaged, or has a member outside its folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                if _escapes(member.filename):
                    raise InputError(
                        f"{path}: member {member.filename!r} lies outside the archive's folder; do not use this archive"
                    )
            for member in members:
                if member.filename.endswith(suffixes):
                    yield member.filename, archive.read(member)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; fetch it") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise InputError(
            f"{path}: truncated or damaged archive ({error}); delete it and fetch it again"
        ) from None


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
