"""The benchmarks of the engine, one after the other: `make bench`. Chaos, ddp and scaling have commands of their own.

Each prints its table and writes benchmarks/local/<name>.json. They need data/prepared (`make reproduce` makes it) and a
machine with nothing else to do.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RUNS = {
    "gru_layer": ["gru_layer.py"],
    "gru_layer_1_thread": ["gru_layer.py", "--threads", "1"],
    "projection_music": ["projection.py", "--corpus", "chorales", "--hidden", "200", "--layers", "2"],
    "projection_words": [
        "projection.py",
        *("--corpus", "ptb", "--hidden", "650", "--layers", "1", "--rate", "1.0", "--steps", "60"),
    ],
}

(HERE / "local").mkdir(exist_ok=True)
for name, (script, *options) in RUNS.items():
    print(f"\n== {name}", flush=True)
    out = ["--out", str(HERE / "local" / f"{name}.json")]
    done = subprocess.run([sys.executable, str(HERE / script), *options, *out], check=False)
    if done.returncode:
        sys.exit(f"benchmarks/{script} failed with exit code {done.returncode}; {name}.json was not written")
