"""The project that runs belong to. Several projects may share a store, and a project may be moved or copied.

A folder of results keeps a random id in a file outside version control. A clone has none and gets its own. A moved
folder keeps its id. A copy has the file, too, but is another directory: it gets its own id and remembers the former
one, under which its runs are in a database that was copied with it.
"""

import json
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

from spectralgru.files import write_json

FILE = ".project.json"


@dataclass(frozen=True)
class Project:
    """A folder of results and the id of its runs."""

    root: Path  # resolved
    id: str
    former: tuple[str, ...] = ()  # ids of the projects it was copied from

    def path(self, directory: Path) -> str:
        """The directory of a run relative to the root, which identifies it."""
        return Path(os.path.relpath(directory.resolve(), self.root)).as_posix()

    def adopted(self, directory: str) -> str:
        """The relative path of a run that earlier versions identified by absolute path, unless of another project."""
        match = re.fullmatch(r"(.*)/(runs/[^/]+/[^/]+(?:/seed-\d+)?|figures/[^/]+)", directory)
        here = match and (Path(match[1]) == self.root or not Path(match[1]).exists())
        return match[2] if match and here else directory

    def owns(self, database: Path | None) -> bool:
        """Whether the database is the project's own, `<project>/mlflow.db` for `<project>/results/<scale>`."""
        return database is not None and database.resolve().parent == self.root.parent.parent


def project_at(root: Path) -> Project:
    """The project of a folder of results; creates its id if it has none. For one process at a time."""
    root = root.resolve()
    inode = root.stat().st_ino
    known: str | None = None
    former: tuple[str, ...] = ()
    try:
        kept = json.loads((root / FILE).read_text(encoding="utf-8"))
        known, former = str(uuid.UUID(kept["id"])), tuple(str(uuid.UUID(name)) for name in kept["former"])
        if kept["inode"] == inode:
            return Project(root, known, former)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # there is none yet, or it is damaged
    former = (*former, known) if known else former
    project = Project(root, str(uuid.uuid4()), former)
    try:
        write_json(root / FILE, {"id": project.id, "inode": inode, "former": former})
    except OSError:  # read-only results of another user: the same id every time
        return Project(
            root, str(uuid.uuid5(uuid.NAMESPACE_URL, f"{os.getuid()}@{os.uname().nodename}{root}"))
        )
    return project
