"""The engine's benchmarks: python -m benchmarks [NAME ...] [--device cuda]; no name: all of them.

Each writes benchmarks/results/<name>.json, .md and .svg. They need data/prepared (`make reproduce` makes it; Nottingham
by `spectralgru prepare --corpus nottingham`) and a machine with nothing else to do. `chaos`, `ddp`, `scaling` and
`tracking` measure the workflow and have commands of their own.
"""

import argparse
import importlib

from spectralgru.errors import InputError
from spectralgru.training.distributed import device_seen

NAMES = (
    *("gru_layer", "library", "projection", "training_step", "step_profile", "tracing"),
    *("end_to_end", "shapes", "peers", "around"),
)

parser = argparse.ArgumentParser(
    prog="benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
parser.add_argument("--device", default="cpu", help="cpu or cuda")
options = parser.parse_args()
if unknown := set(options.names) - set(NAMES):
    parser.error(f"{', '.join(sorted(unknown))}: no such benchmark; use {', '.join(NAMES)}")
try:
    device_seen(options.device)
except InputError as error:
    parser.error(str(error))
for name in options.names or NAMES:
    importlib.import_module(f"benchmarks.{name}").run(options.device)
