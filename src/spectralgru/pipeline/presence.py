"""Which Snakemake processes work in a folder: each holds a lock of the operating system on a record of itself.

Snakemake's own lock is a file, which outlives a killed process. These locks do not, and unlike process ids they can be
seen across the users and containers of a machine. A reboot ends every earlier process.
"""

import atexit
import fcntl
import getpass
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

from pydantic import BaseModel

from spectralgru.pipeline.side_files import read_as

FOLDER = Path(".snakemake/at-work")


class Presence(BaseModel):
    """A process that plans or runs the workflow."""

    host: str
    machine: str  # empty if the system has no id
    boot: str  # changes when the machine starts
    user: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}"


def put_on_path() -> None:
    """Make jobs call the `spectralgru` of this environment, even if it is not activated."""
    folder, command = Path(sys.executable).parent, shutil.which("spectralgru")
    if (folder / "spectralgru").exists() and command != f"{folder}/spectralgru":
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def here() -> Presence:
    """This process."""
    machine, boot = (_line(name) for name in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"))
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return Presence(host=socket.gethostname(), machine=machine, boot=boot, user=user, pid=os.getpid())


def be_present() -> None:
    """Leave a record that stays locked until this process ends in any way; a normal end removes it."""
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=FOLDER)
        os.fchmod(descriptor, 0o644)  # other users must be able to read it, whatever the umask
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, here().model_dump_json().encode())
        record = Path(name).rename(f"{name}.json")
    except OSError:
        return  # Snakemake cannot lock this folder either
    atexit.register(record.unlink, missing_ok=True)


def records() -> list[Path]:
    """All records, of running and ended processes."""
    return sorted(FOLDER.glob("*.json"))


def may_live(record: Path) -> str:
    """The process that left the record; empty if it has certainly ended."""
    holder, me = read_as(Presence, record), here()
    who = str(holder) if holder else f"an unknown process ({record})"
    if holder is None or not me.boot:
        return who
    if holder.boot != me.boot:
        rebooted = holder.machine and (holder.machine, holder.host) == (me.machine, me.host)
        return "" if rebooted else who
    try:
        with record.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return who
    return ""


def _line(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
