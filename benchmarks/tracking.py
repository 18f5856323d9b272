"""How long it takes to import many runs into a fresh SQLite store, and to import them again with nothing to do.

    python -m benchmarks.tracking --runs 1000

Runs are of 6 epochs with 240 rows of trace, 10 seeds per setting, as in the paper's tables. Writes
benchmarks/results/tracking.json.
"""

import argparse
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # plausible run directories

from benchmarks.measuring import RESULTS, machine

from results_records import make_run
from spectralgru.files import write_json
from spectralgru.pipeline.tracking import open_store, track

SEEDS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    count = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "quick"
        runs = [
            make_run(root, "ptb", "clipping", 1.0 + i // SEEDS, i % SEEDS, scale="quick")
            for i in range(count)
        ]
        uri = f"sqlite:///{folder}/mlflow.db"
        open_store(uri)  # imports of MLflow and the making of the tables are not what is measured
        versions = {name: version(name) for name in ("mlflow", "sqlalchemy")}
        found: dict[str, Any] = {"machine": machine(), "versions": versions, "runs": count}
        for name in ("first_seconds", "second_seconds"):
            begin, cpu = time.monotonic(), time.process_time()
            done = track(root, runs, uri, data=Path(folder))
            found[name] = round(time.monotonic() - begin, 2)
            found[name.replace("seconds", "cpu_seconds")] = round(time.process_time() - cpu, 2)
            found[name.replace("seconds", "written")] = done.written
        size = sum(path.stat().st_size for path in Path(folder).glob("mlflow.db*"))
        found["megabytes"] = round(size / 1e6, 1)
    write_json(RESULTS / "tracking.json", found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
