"""Runs that are still training: the weights of their best validation epoch so far, from their checkpoints.

python scripts/unfinished.py RECORD/params.yaml data .checkpoints/<key>.pt ... > RECORD/unfinished.csv
"""

import csv
import sys
from pathlib import Path

import torch

from spectralgru.pipeline.params import load_params
from spectralgru.training.batches import evaluation_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.data.loading import width
from spectralgru.training.evaluate import evaluate
from spectralgru.training.models import ReplicatedModel

params, data, *checkpoints = map(Path, sys.argv[1:])
job = load_params(params, {}).job("nottingham", [])
corpus, shape = load(data / "prepared" / "nottingham.npz"), (job.model.hidden_size, job.model.num_layers)
table = csv.writer(sys.stdout, lineterminator="\n")
columns = ["method", "value", "seed", "epoch", "learning_rate", "best_epoch", "valid", "test", "last_valid"]
table.writerow([*columns, "grad_norm_max", "spectral_radius_max"])
for run in [run for file in checkpoints for run in torch.load(file, weights_only=False)["progress"]]:
    model = ReplicatedModel(corpus.kind, width(corpus), *shape, job.model.input_scale, replicas=1)
    model.set_weights(0, run["best_weights"])
    streams = (
        evaluation_stream(corpus, split, job.training.batch_size, job.training.bptt_steps, model.device)
        for split in ("valid", "test")
    )
    losses = [f"{evaluate(model, stream).item():.6g}" for stream in streams]
    last = run["history"][-1]
    largest = (max(row[name] for row in run["history"]) for name in ("grad_norm_max", "spectral_radius"))
    table.writerow(
        [
            *(run["replica"][name] for name in ("method", "value", "seed")),
            *(int(last["epoch"]), f"{last['learning_rate']:.4g}", run["best_epoch"], *losses),
            *(f"{number:.4g}" for number in (last["valid_metric"], *largest)),
        ]
    )
