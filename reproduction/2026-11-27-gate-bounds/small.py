"""The small trainings in one table: python small.py FOLDER > small.csv; FOLDER has b-*.json and their out-b-*."""

import csv
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from spectralgru.projection.growth_bound import growth_bound

folder, table = Path(sys.argv[1]), csv.writer(sys.stdout, lineterminator="\n")
columns = ["learning_rate", "gates", "seed", "status", "best_epoch", "valid", "test", "final_valid"]
table.writerow([*columns, "grad_norm_max", "epochs_above_100", "sigma_gates", "growth_bound"])
for job in sorted(folder.glob("b-*.json")):
    training = json.loads(job.read_text())["training"]
    for file in sorted(folder.glob(f"out-{job.stem}/runs/*/*/*/run.json")):
        run, weights = json.loads(file.read_text()), load_file(file.with_name("model.safetensors"))
        history = list(csv.DictReader(file.with_name("history.csv").open()))
        norms = [float(row["grad_norm_max"]) for row in history]
        sigma, growth = 0.0, 0.0
        for layer in range(2):  # at the best epoch
            reset, update, candidate = weights[f"gru.weight_hh_l{layer}"].double().view(3, 1, 50, 50)
            blocks = {"reset": reset, "update": update, "candidate": candidate}
            growth = max(growth, float(growth_bound(blocks)))
            sigma = max(sigma, *(float(torch.linalg.matrix_norm(gate, 2)) for gate in (reset, update)))
        best = [f"{run['best'][name]:.5g}" if name in run["best"] else "" for name in ("valid", "test")]
        row = [
            training["learning_rate"],
            training["gates"] or "",
            run["seed"],
            run["status"],
            run["best"]["epoch"],
        ]
        row += [*best, f"{float(history[-1]['valid_metric']):.5g}", f"{max(norms):.4g}"]
        row += [sum(norm > 100 for norm in norms), f"{sigma:.4g}", f"{growth:.4g}"]
        table.writerow(row)
