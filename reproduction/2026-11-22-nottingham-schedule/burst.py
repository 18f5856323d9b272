"""The first step in which a run's gradient bursts, taken apart by `spectralgru.autopsy`. About five minutes.

    python burst.py data [delta [seed]] > burst.txt

Trains the run (delta 0.2, seed 0) until the norm of a gradient is 10 times its median over the last 100 steps, then
repeats that step's batch from the weights, states and dropout masks before it, in float64: where the gradient grew on
its way back, with which paths cut out, beside the step before, and what would have helped.
"""

import sys
from collections import deque
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from spectralgru import GRU, autopsy
from spectralgru.pipeline.params import load_params
from spectralgru.training.batches import Chunk, training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.engine import Engine

CPU, FACTOR, WINDOW = torch.device("cpu"), 10.0, 100


class Network(nn.Module):
    """The engine's first replica, with the dropout masks of one step."""

    def __init__(self, engine: Engine, masks: list[Tensor]) -> None:
        super().__init__()
        model = engine.model
        self.scale, self.masks = model.input_scale, [mask[0] for mask in masks]
        self.input = nn.Parameter(model.input["weight"][0].detach().clone())
        self.layers = nn.ModuleList(
            GRU(model.hidden_size, model.hidden_size) for _ in range(model.num_layers)
        )
        self.output = nn.Linear(model.hidden_size, len(self.input))
        with torch.no_grad():
            for k, layer in enumerate(self.layers):
                for ours, theirs in zip(layer.layer_weights(0), model.gru.layer_weights(k), strict=True):
                    ours.copy_(theirs[0])
            self.output.weight.copy_(model.output["weight"][0])
            self.output.bias.copy_(model.output["bias"][0])

    def forward(self, notes: Tensor, state: Tensor, starts: Tensor) -> Tensor:
        """Logits [T, B, V]."""
        x = notes @ self.input * self.scale
        for layer, h, mask in zip(self.layers, state, self.masks, strict=False):
            x = layer(x * mask.to(x), h.unsqueeze(0), starts)[0]
        return self.output(x * self.masks[-1].to(x))


def before_step(engine: Engine, chunk: Chunk) -> tuple[Network, tuple[Tensor, ...]]:
    """Network and batch of the step that comes next."""
    drawn = [generator.get_state() for generator in engine.generators]
    masks = engine._dropout_masks(*chunk.weights.shape[1:])
    for generator, state in zip(engine.generators, drawn, strict=True):
        generator.set_state(state)
    return Network(engine, masks), (chunk.inputs[0], engine.state[0].clone(), chunk.starts[0])


def taken_apart(network: Network, batch: tuple[Tensor, ...], chunk: Chunk, engine: Engine) -> str:
    """The autopsy in words."""

    def loss(logits: Tensor) -> Tensor:
        targets = chunk.targets[0].to(logits)
        losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (losses.sum(-1) * chunk.weights[0]).sum() / engine.lanes

    rates = torch.optim.SGD(network.parameters(), lr=float(engine.rate[0]))
    return str(autopsy(network, batch, loss, optimizer=rates, dtype=torch.float64, gates=1.5))


torch.set_num_threads(1)
data, delta, seed = Path(sys.argv[1]), *(float(word) for word in [*sys.argv[2:], 0.2, 0][:2])
params = load_params(Path(__file__).with_name("params.yaml"), {})
job = params.job("nottingham", [("constraint", delta)], [int(seed)])
corpus, training = load(data / "prepared" / "nottingham.npz"), job.training
engine = Engine(corpus, job.model, job.replicas, training.batch_size, CPU)
norms, last, step = deque[float](maxlen=WINDOW), None, 0
for epoch in range(1, training.epochs + 1):
    stream = training_stream(corpus, [int(seed)], epoch, training.batch_size, training.bptt_steps, CPU)
    engine.start_epoch()
    for i in range(len(stream)):
        chunk, step = stream.chunk(i), step + 1
        now = (*before_step(engine, chunk), chunk, engine)
        norm = engine.step(chunk)[1].item()
        if len(norms) == WINDOW and not norm < FACTOR * median(norms):
            print(f"epoch {epoch}, step {step}: gradient's norm {norm:.4g}, median {median(norms):.4g}\n")
            print(taken_apart(*now))
            print("\nthe step before\n")
            print(taken_apart(*last))
            sys.exit()
        norms.append(norm)
        last = now
