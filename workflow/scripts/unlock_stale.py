"""Remove the lock that a killed snakemake left behind, if it is certain that it is no longer running.

Options are handed on to `snakemake --unlock`.
"""

import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from spectralgru.pipeline.presence import FOLDER, may_live, records

unlock = [sys.executable, "-m", "snakemake", "--unlock", *sys.argv[1:]]
if locks := list(Path(".snakemake/locks").glob("*")):
    found = records()
    living = [who for record in found if (who := may_live(record))]
    known = {record.stat().st_uid for record in found}
    if not living and {lock.stat().st_uid for lock in locks} <= known:
        with suppress(OSError):  # of another user; it does no harm
            for record in found:
                record.unlink()
        sys.exit(subprocess.run(unlock, check=False).returncode)
    who = " or ".join(living) or "a Snakemake that left no record of itself"
    print(
        f"{Path.cwd()} is locked by {who}, which may be at work. If it is certain that it is not: "
        f"rm -rf {FOLDER} && {shlex.join(unlock)}",
        file=sys.stderr,
    )
    sys.exit(1)
