"""Write scripts/jobs/<corpus>.json: all seeds and settings of a corpus as one job, from params.yaml.

    python scripts/gpu_jobs.py [--scale paper] [--set training.epochs=15 ...] [ptb nottingham ...]

A seed's runs stand together, so that the first ones are a whole table. Needs the package with its command line;
`gpu_campaign.py`, which trains the jobs, does not.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from spectralgru.files import write_json, write_text
from spectralgru.pipeline.params import load_params, with_changes
from spectralgru.training.environment import git_commit
from spectralgru.training.settings import code_sha256

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("corpora", nargs="*", help="default: those of the scale")
parser.add_argument("--scale", default="paper")
parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="as of `spectralgru train`")
parser.add_argument("--params", type=Path, default=Path("params.yaml"))
parser.add_argument("--out", type=Path, default=Path(__file__).parent / "jobs")
options = parser.parse_args()
params = load_params(options.params, {"scale": options.scale})
# A copied tree has no git.
write_text(options.out / "source", f"{git_commit()} {code_sha256()}\n")
for corpus in options.corpora or params.chosen_corpora():
    changed = with_changes(params, corpus, options.set)
    job = changed.job(corpus, changed.settings(corpus))
    job = replace(job, replicas=tuple(sorted(job.replicas, key=lambda replica: replica.seed)))
    write_json(options.out / f"{corpus}.json", asdict(job))
    print(f"{options.out / corpus}.json: {len(job.replicas)} runs")
