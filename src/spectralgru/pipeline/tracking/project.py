"""The project that runs belong to: several may share a store, and one may be moved or copied.

A folder of results keeps a random id in a file outside version control. A clone has none and gets its own. A moved
folder keeps its id. A copy has the file, too, but is a different directory: it gets its own id, and remembers the one
it came with, under which its runs are found in a database copied with it.
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
    former: tuple[str, ...] = ()  # ids of the projects that it was copied from

    def path(self, directory: Path) -> str:
        """The directory that identifies a run: relative to the root."""
        return Path(os.path.relpath(directory.resolve(), self.root)).as_posix()

    def adopted(self, directory: str) -> str:
        """The path here of a run that earlier versions identified by its absolute path; other projects' excluded."""
        match = re.fullmatch(r"(.*)/(runs/[^/]+/[^/]+(?:/seed-\d+)?|figures/[^/]+)", directory)
        here = match and (Path(match[1]) == self.root or not Path(match[1]).exists())
        return match[2] if match and here else directory

    def owns(self, database: Path | None) -> bool:
        """Whether the database is the project's own, `<project>/mlflow.db` for `<project>/results/<scale>`."""
        return database is not None and database.resolve().parent == self.root.parent.parent


def project_at(root: Path) -> Project:
    """The project of a folder of results; its id is created here if it has none. One process at a time."""
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
        pass  # none yet, or damaged: treated as if there were none
    former = (*former, known) if known else former
    project = Project(root, str(uuid.uuid4()), former)
    try:
        write_json(root / FILE, {"id": project.id, "inode": inode, "former": former})
    except OSError:  # another user's read-only results: the same id each time
        return Project(
            root, str(uuid.uuid5(uuid.NAMESPACE_URL, f"{os.getuid()}@{os.uname().nodename}{root}"))
        )
    return project
