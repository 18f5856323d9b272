"""Write scripts/jobs/<corpus>.json: all settings and seeds of a corpus as one job, from params.yaml.

    python scripts/gpu_jobs.py [--scale paper] [nottingham ptb ...]

Needs the package with its command line; `gpu_campaign.py`, which trains the jobs, does not.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from spectralgru.files import write_json
from spectralgru.pipeline.params import load_params

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("corpora", nargs="*", help="default: those of the scale")
parser.add_argument("--scale", default="paper")
parser.add_argument("--params", type=Path, default=Path("params.yaml"))
parser.add_argument("--out", type=Path, default=Path(__file__).parent / "jobs")
options = parser.parse_args()
params = load_params(options.params, {"scale": options.scale})
for corpus in options.corpora or params.chosen_corpora():
    job = params.job(corpus, params.settings(corpus))
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / f"{corpus}.json", asdict(job))
    print(f"{options.out / corpus}.json: {len(job.replicas)} runs")
