"""Delta 0.5, of which every seed is lost by epoch 56, with something on top: does it keep training from exploding?

    python remedies.py data clipping 30   # the gradient's norm at most 30
    python remedies.py data gates 10      # sigma_1 of W_hr and W_hz at most 10
    python remedies.py data gates 1.5     # the same bound as W_hh's

Schedule, seeds and start are the table's. One line an epoch and run, as long as it is finite.
"""

import csv
import sys
from pathlib import Path

import torch

from spectralgru.pipeline.params import load_params
from spectralgru.spectral import SpectralProjection
from spectralgru.training.batches import evaluation_stream, training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.engine import Engine
from spectralgru.training.evaluate import evaluate
from spectralgru.training.schedule import LearningRate

EPOCHS, SEEDS = 70, [0, 1, 2]
CPU = torch.device("cpu")

torch.set_num_threads(1)
data, remedy, value = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
job = load_params(Path(__file__).with_name("params.yaml"), {}).job("nottingham", [("constraint", 0.5)], SEEDS)
corpus, training, hidden = load(data / "prepared" / "nottingham.npz"), job.training, job.model.hidden_size
engine = Engine(corpus, job.model, job.replicas, training.batch_size, CPU)
if remedy == "clipping":
    engine.threshold.fill_(value)
weights = [getattr(engine.model.gru, f"weight_hh_l{layer}").detach() for layer in range(job.model.num_layers)]
gates = [w[:, rows : rows + hidden] for w in weights for rows in (0, hidden)]
bounds = [SpectralProjection(engine.max_sv.new_full((len(SEEDS),), value)) for _ in gates]
valid = evaluation_stream(corpus, "valid", training.batch_size, training.bptt_steps, CPU)
rates = [LearningRate(training.schedule, replica.learning_rate) for replica in job.replicas]
table = csv.writer(sys.stdout, lineterminator="\n")
columns = ["learning_rate", "train_loss", "valid_loss", "grad_norm_max", "spectral_radius", "sigma_gates"]
table.writerow(["remedy", "value", "seed", "epoch", *columns])
for epoch in range(1, EPOCHS + 1):
    stream = training_stream(corpus, SEEDS, epoch, training.batch_size, training.bptt_steps, CPU)
    engine.start_epoch()
    loss, largest, count = torch.zeros(len(SEEDS)), torch.zeros(len(SEEDS)), 0.0
    for i in range(len(stream)):
        chunk = stream.chunk(i)
        summed, norm = engine.step(chunk)
        loss, largest, count = loss + summed, torch.maximum(largest, norm), count + chunk.count
        if remedy == "gates":
            with torch.no_grad():
                for bound, gate in zip(bounds, gates, strict=True):
                    bound.project_(gate)
    held_out = evaluate(engine.model, valid)
    sigma = torch.stack([torch.linalg.matrix_norm(g.nan_to_num(), 2) for g in gates]).amax(0)
    for run, seed in enumerate(SEEDS):
        numbers = (rates[run].rate, loss[run] / count, held_out[run], largest[run])
        if all(torch.isfinite(torch.tensor(numbers))):
            numbers = (*numbers, engine.spectral_radius()[run], sigma[run])
            table.writerow([remedy, f"{value:g}", seed, epoch, *(f"{float(n):.6g}" for n in numbers)])
            rates[run].finish_epoch(float(held_out[run]))
            engine.rate[run] = rates[run].rate
    sys.stdout.flush()
