"""Runs that are still training: the weights of their best validation epoch so far, from the checkpoint.

python unfinished.py .checkpoints/<key>.pt data > unfinished.csv
"""

import csv
import sys
from pathlib import Path

import torch

from spectralgru.corpora.dataset import load
from spectralgru.models import ReplicatedModel
from spectralgru.params import load_params
from spectralgru.training.batches import evaluation_stream
from spectralgru.training.data import width
from spectralgru.training.evaluate import evaluate

checkpoint, data = map(Path, sys.argv[1:])
job = load_params(Path(__file__).with_name("params.yaml"), {}).job("nottingham", [])
corpus = load(data / "prepared" / "nottingham.npz")
table = csv.writer(sys.stdout, lineterminator="\n")
table.writerow(
    ["method", "value", "seed", "epoch", "learning_rate", "best_epoch", "valid", "test", "grad_norm_max"]
)
for run in torch.load(checkpoint, weights_only=False)["progress"]:
    shape = job.model.hidden_size, job.model.num_layers
    model = ReplicatedModel(corpus.kind, width(corpus), *shape, job.model.input_scale, replicas=1)
    model.set_weights(0, {name: weight.numpy() for name, weight in run["best_weights"].items()})
    streams = (
        evaluation_stream(corpus, split, job.training.batch_size, job.training.bptt_steps, model.device)
        for split in ("valid", "test")
    )
    losses = [f"{evaluate(model, stream).item():.6g}" for stream in streams]
    replica, history = run["replica"], run["history"]
    last = history[-1]
    table.writerow(
        [
            *(replica[name] for name in ("method", "value", "seed")),
            *(int(last["epoch"]), f"{last['learning_rate']:.4g}", run["best_epoch"], *losses),
            f"{max(row['grad_norm_max'] for row in history):.4g}",
        ]
    )
