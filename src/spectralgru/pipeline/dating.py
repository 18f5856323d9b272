"""Reads and sets modification dates as Snakemake sees them, without changing other users' files."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISLNK

OUTDATED = 1_000_000_000  # nanoseconds since 1970, older than anything (to Snakemake, 0 means "no date")


def date_of(path: Path) -> int:
    """Date of an input in nanoseconds since 1970; of a link, the later of its own and its target's; 0 if missing."""
    try:
        return max(path.lstat().st_mtime_ns, path.stat().st_mtime_ns)
    except OSError:
        return 0


@dataclass
class Dates:
    """Sets dates, but none in the future, since the clock may have been set back."""

    now: int = field(default_factory=time.time_ns)
    latest: int = 0  # date of the current files so far
    refused: dict[Path, str] = field(default_factory=dict)  # files that could not be dated, and why

    def set(self, paths: Iterable[Path], current: bool, not_before: int = 0) -> None:
        """Date current files no earlier than `not_before` and others before everything; missing files stay missing."""
        for path in paths:
            try:
                if not path.exists():
                    continue
                own = path.lstat().st_mtime_ns
                date = min(max(own, not_before), self.now) if current else OUTDATED
                if date_of(path) > self.now and path.is_symlink():
                    _replace_by_copy(path, date)
                elif date != own:
                    _date(path, date)
                self.latest = max(self.latest, date)
            except OSError as error:
                self.refused[path] = error.strerror or str(error)

    def complaint(self) -> str:
        """One line about the files that could not be dated; empty if all could."""
        if not self.refused:
            return ""
        path, reason = next(iter(self.refused.items()))
        others = f" and {len(self.refused) - 1} other files" if len(self.refused) > 1 else ""
        return (
            f"{path}{others}: the date cannot be set ({reason}), so Snakemake may plan too much or too little; let "
            "the owner plan, or have the folder made writable for you"
        )


def _date(path: Path, date: int) -> None:
    """Date a file or link. One that belongs to another user, or has further names, is replaced by a copy."""
    info = path.lstat()
    if not S_ISLNK(info.st_mode) and info.st_nlink > 1:  # for example a link into a cache
        return _replace_by_copy(path, date)
    try:
        os.utime(path, ns=(date, date), follow_symlinks=False)
    except PermissionError:
        _replace_by_copy(path, date)
    return None


def _replace_by_copy(path: Path, date: int) -> None:
    """Replace the file or the link, never a link's target, by a copy of its content with this date."""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:50]}-", suffix=".partial", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        shutil.copyfile(path, temporary)
        temporary.chmod(path.stat().st_mode & 0o777 | 0o600)
        os.utime(temporary, ns=(date, date))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
