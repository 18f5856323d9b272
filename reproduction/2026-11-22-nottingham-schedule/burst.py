"""The step in which the run of delta 0.2, seed 0 bursts, and where its gradient comes from. About five minutes.

    python burst.py data > burst.csv

Trains the run to that step, then takes the step's gradient in float64 by PyTorch's own differentiation of the GRU's
equations: as it is, and with the recurrence cut (in the gradient alone) where it enters the update gate, the reset
gate, the candidate, or all three. The step before is there to compare.
"""

import csv
import sys
from pathlib import Path

import torch
from torch import Tensor

from spectralgru.pipeline.params import load_params
from spectralgru.training.batches import Chunk, training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.engine import Engine

EPOCH, STEP, LAYERS = 34, 243, 2
CPU = torch.device("cpu")


def gradient(engine: Engine, chunk: Chunk, masks: list[Tensor], cut: str) -> tuple[float, float, float]:
    """Loss a step, norm of the gradient, and how many times |dL/dh_t| grows, backward from the last t, at most.

    The growth is that of layer 2 in the lane where |dL/dh_t| is largest.
    """
    weights = {name: w[0].detach().double().requires_grad_() for name, w in engine.model.named_parameters()}
    x = chunk.inputs[0].double() @ weights["input.weight"] * engine.model.input_scale
    keep = (~chunk.starts[0]).double().unsqueeze(-1)
    for layer in range(LAYERS):
        x, h, states = x * masks[layer][0].double(), engine.state[0, layer].double(), []
        w_r, w_z, w_n = weights[f"gru.weight_ih_l{layer}"].chunk(3)
        u_r, u_z, u_n = weights[f"gru.weight_hh_l{layer}"].chunk(3)
        for x_t, kept in zip(x, keep, strict=True):
            h = h * kept
            to_r, to_z, to_n = (h.detach() if gate in cut else h for gate in "rzn")
            r, z = torch.sigmoid(x_t @ w_r.T + to_r @ u_r.T), torch.sigmoid(x_t @ w_z.T + to_z @ u_z.T)
            h = z * h + (1 - z) * torch.tanh(x_t @ w_n.T + (r * to_n) @ u_n.T)
            h.retain_grad()
            states.append(h)
        x = torch.stack(states)
    logits = (x * masks[-1][0].double()) @ weights["output.weight"].T + weights["output.bias"]
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, chunk.targets[0].double(), reduction="none"
    )
    loss = (losses.sum(-1) * chunk.weights[0]).sum()
    (loss / engine.lanes).backward()
    norm = torch.stack([w.grad.norm() for w in weights.values()]).norm().item()
    back = torch.stack([h.grad.norm(dim=-1) for h in states])
    lane = back[:, back.amax(0).argmax()]
    return loss.item() / chunk.count, norm, (lane.max() / lane[-1]).item()


torch.set_num_threads(1)
data = Path(sys.argv[1])
params = load_params(Path(__file__).with_name("params.yaml"), {})
job = params.job("nottingham", [("constraint", 0.2)], [0])
corpus, training = load(data / "prepared" / "nottingham.npz"), job.training
engine = Engine(corpus, job.model, job.replicas, training.batch_size, CPU)
table = csv.writer(sys.stdout, lineterminator="\n")
sigmas = [f"sigma_{gate}_layer_{layer}" for layer in (1, 2) for gate in "rzn"]
table.writerow(["step", "cut", "loss", "gradient_norm", "backward_growth", "spectral_radius", *sigmas])
for epoch in range(1, EPOCH + 1):
    stream = training_stream(corpus, [0], epoch, training.batch_size, training.bptt_steps, CPU)
    engine.start_epoch()
    for i in range(len(stream) if epoch < EPOCH else STEP + 1):
        chunk, step = stream.chunk(i), (epoch - 1) * len(stream) + i + 1
        if epoch == EPOCH and i >= STEP - 1:
            drawn = [generator.get_state() for generator in engine.generators]
            masks = engine._dropout_masks(*chunk.weights.shape[1:])
            for generator, state in zip(engine.generators, drawn, strict=True):
                generator.set_state(state)
            blocks = [
                torch.linalg.matrix_norm(block.detach().double(), 2).item()
                for layer in range(LAYERS)
                for block in getattr(engine.model.gru, f"weight_hh_l{layer}")[0].chunk(3)
            ]
            radius = engine.spectral_radius().item()
            for cut in ("", "z", "r", "n", "zrn"):
                numbers = (*gradient(engine, chunk, masks, cut), radius, *blocks)
                table.writerow([step, cut or "nothing", *(f"{number:.5g}" for number in numbers)])
        engine.step(chunk)
