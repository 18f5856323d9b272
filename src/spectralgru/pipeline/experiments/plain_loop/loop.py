"""The training loop that people write today: modules of torch.nn, a torch optimiser, one run at a time.

It reads the engine's batches, differentiates the same loss and starts from the same weights, so that its results and
its speed can be compared with the engine's.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import spectralgru.recurrent.gru
from spectralgru.training.batches import Chunk, NoteStream, WordStream
from spectralgru.training.data.dataset import Corpus
from spectralgru.training.data.loading import width
from spectralgru.training.models import initial_weights
from spectralgru.training.settings import ModelSettings

State = tuple[Tensor, ...]  # (h,) of a GRU, (h, c) of an LSTM, each [L, B, H]

CELLS: dict[str, Callable[[int, int, float], nn.Module]] = {  # of hidden size, layers, dropout between layers
    "GRU": lambda hidden, layers, dropout: nn.GRU(hidden, hidden, layers, bias=False, dropout=dropout),
    "LSTM": lambda hidden, layers, dropout: nn.LSTM(hidden, hidden, layers, bias=False, dropout=dropout),
    "paper": lambda hidden, layers, dropout: spectralgru.recurrent.gru.GRU(hidden, hidden, layers, dropout),
}
NOT_COUNTED = -100  # target that cross_entropy ignores


class PlainModel(nn.Module):
    """First layer -> GRU or LSTM -> output layer, with dropout on every non-recurrent connection."""

    def __init__(self, corpus: Corpus, settings: ModelSettings, seed: int, cell: str = "GRU") -> None:
        """Start from the engine's initial weights for `seed`; `cell`: a key of CELLS."""
        super().__init__()
        size, hidden, layers = width(corpus), settings.hidden_size, settings.num_layers
        self.words = corpus.kind == "words"
        self.input_scale, self.hidden_size, self.num_layers = settings.input_scale, hidden, layers
        self.input = nn.Embedding(size, hidden) if self.words else nn.Linear(size, hidden, bias=False)
        self.rnn = CELLS[cell](hidden, layers, settings.dropout if layers > 1 else 0.0)
        self.output = nn.Linear(hidden, size)
        self.dropout = nn.Dropout(settings.dropout)
        self.states = 2 if cell == "LSTM" else 1
        # Modules that compute a layer's W_hh from the parameters trained in its place (parametrisations).
        self.computed = nn.ModuleDict()
        self._start(size, settings.init_scale, seed)

    @torch.no_grad()
    def _start(self, size: int, init_scale: float, seed: int) -> None:
        weights = dict(initial_weights(size, self.hidden_size, self.num_layers, init_scale, seed))
        generator = torch.Generator().manual_seed(seed)
        first = torch.from_numpy(weights.pop("input.weight"))
        self.input.weight.copy_(first if self.words else first.T)
        for name, value in weights.items():
            target = self.get_parameter(name.replace("gru.", "rnn."))
            given = torch.from_numpy(value)
            target[: len(given)] = given
            # An LSTM's rows are i, f, g, o: its candidate g is where a GRU has its own, followed by one more gate.
            more = target[len(given) :]
            more.normal_(0, math.sqrt(init_scale / self.hidden_size), generator=generator)

    def initial_state(self, lanes: int) -> State:
        """Zeros."""
        zeros = self.output.weight.new_zeros(self.num_layers, lanes, self.hidden_size)
        return (zeros,) * self.states

    def forward(self, inputs: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        """Logits [T, B, V] and the last state. `inputs`: ids [T, B] or notes [T, B, V]; `starts` [T, B] or None."""
        self.compute_weights()
        x = self.dropout(self.input(inputs) * self.input_scale)
        outputs = []
        for begin, end in _segments(len(inputs), starts):
            if starts is not None:
                state = tuple(s * ~starts[begin, :, None] for s in state)
            output, last = self.rnn(x[begin:end], state if len(state) > 1 else state[0])
            state = last if isinstance(last, tuple) else (last,)
            outputs.append(output)
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return self.output(self.dropout(x)), state

    def compute_weights(self) -> None:
        """Set the layers' weights to the results of the modules in `computed`."""
        for name, module in self.computed.items():
            setattr(self.rnn, name, module())

    def loss(self, chunk: Chunk, state: State) -> tuple[Tensor, State]:
        """Loss in nats, summed over steps and lanes without padding, and the last state."""
        weights = chunk.weights[0]
        if self.words:
            logits, state = self(chunk.inputs, state, None)
            targets = chunk.targets.masked_fill(weights == 0, NOT_COUNTED)
            total = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
            return total, state
        starts = None if chunk.starts is None else chunk.starts[0]
        logits, state = self(chunk.inputs[0], state, starts)
        weight = weights.unsqueeze(-1)
        return binary_cross_entropy_with_logits(logits, chunk.targets[0], weight, reduction="sum"), state

    def weight_hh(self, layer: int) -> Tensor:
        """All of W_hh [3H or 4H, H] of a layer."""
        weight: Tensor = getattr(self.rnn, f"weight_hh_l{layer}")
        return weight

    def recurrent(self, layer: int) -> Tensor:
        """W_hh of the candidate [H, H], a view."""
        return self.weight_hh(layer).detach()[2 * self.hidden_size : 3 * self.hidden_size]


def _segments(steps: int, starts: Tensor | None) -> Iterator[tuple[int, int]]:
    """The T steps cut wherever a tune begins in any lane, since modules of torch.nn start from a state only there."""
    cuts = [] if starts is None else starts[1:].any(1).nonzero().flatten().add(1).tolist()
    yield from zip([0, *cuts], [*cuts, steps], strict=True)


@dataclass(frozen=True)
class Rule:
    """What a method adds to a training step."""

    threshold: float = math.inf  # of clipping; infinity only measures the norm
    adaptive: Callable[[float], float] = lambda norm: math.inf  # a threshold that follows the norms
    penalty: Callable[[Chunk, State], Tensor | float] = lambda chunk, state: (
        0.0
    )  # added to the differentiated loss
    before_step: Callable[[], object] = lambda: None  # called when the gradients exist and are clipped
    after_step: Callable[[], object] = lambda: None


def step(
    model: PlainModel, optimizer: torch.optim.Optimizer, rule: Rule, chunk: Chunk, state: State
) -> tuple[Tensor, Tensor, State]:
    """One training step: the summed loss, the norm of the gradient before clipping, and the state to continue from.

    The loss that is differentiated is summed over steps and averaged over lanes, as in the engine.
    """
    optimizer.zero_grad()
    before = state
    loss, state = model.loss(chunk, before)
    objective = loss / chunk.weights.shape[-1] + rule.penalty(chunk, before)
    objective.backward()  # type: ignore[no-untyped-call]
    norm = gradient_norm(model)
    limit = min(rule.threshold, rule.adaptive(float(norm)))
    nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm)
    rule.before_step()
    optimizer.step()
    rule.after_step()
    return loss.detach(), norm, tuple(s.detach() for s in state)


def gradient_norm(model: nn.Module) -> Tensor:
    """The global norm of all gradients."""
    norm: Tensor = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    return norm


@torch.no_grad()
def evaluate(model: PlainModel, stream: WordStream | NoteStream) -> float:
    """Mean loss in nats per token (words) or per time step (notes), without dropout."""
    model.eval()
    total, state = 0.0, model.initial_state(stream.lanes)
    for index in range(len(stream)):
        loss, state = model.loss(stream.chunk(index), state)
        total += float(loss)
    model.train()
    return total / float(stream.counts.sum())
