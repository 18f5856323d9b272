"""Perplexity of every 35-word window of a split, read in 1, 20 or 400 pieces that each begin at the zero state.

    python scripts/windows.py results/paper/runs/ptb data > windows.csv

A window is worse than a guess when its perplexity is above 10,000, the number of words.
"""

import csv
import math
import sys
from pathlib import Path

import torch

from spectralgru.pipeline.saved import load_trained
from spectralgru.training.batches import evaluation_stream

runs, data = map(Path, sys.argv[1:])
table = csv.writer(sys.stdout, lineterminator="\n")
table.writerow(
    ["setting", "split", "pieces", "perplexity", "pieces_with_bad_windows", "bad_windows", "windows"]
)
for directory in sorted(p.parent for p in runs.glob("*/seed-*/model.safetensors")):
    _, model, corpus = load_trained(directory, data)
    for split, pieces in (("valid", 20), ("valid", 400), ("test", 1), ("test", 20), ("test", 400)):
        stream, state = (
            evaluation_stream(corpus, split, pieces, 35, model.device),
            model.initial_state(pieces),
        )
        losses, counts = torch.zeros(len(stream), pieces), torch.zeros(len(stream), pieces)
        for i in range(len(stream)):
            chunk = stream.chunk(i)
            with torch.no_grad():
                features, state = model(chunk.inputs, state)
                likelihood = (
                    model.logits(features)[0]
                    .log_softmax(-1)
                    .gather(-1, chunk.targets.unsqueeze(-1))
                    .squeeze(-1)
                )
            losses[i] = -(likelihood * chunk.weights[0]).sum(0)
            counts[i] = chunk.weights[0].sum(0)
        bad = losses > counts * math.log(model.output["bias"].shape[-1])
        perplexity = math.exp(losses.double().sum() / counts.double().sum())
        numbers = (int(bad.any(0).sum()), int(bad.sum()), int((counts > 0).sum()))
        table.writerow([directory.parent.name, split, pieces, f"{perplexity:.2f}", *numbers])
