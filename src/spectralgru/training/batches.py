"""Truncated back-propagation through time on one long stream, for words and for tunes alike.

The sequences of an epoch are laid end to end and cut into B lanes of equal length; every lane is read T steps at a
time, with the hidden state carried over. Tunes start from a zero state (`starts`), so that a lane can hold many of
them. Padding is needed only at the ends of lanes: less than 1 % of the steps, where batches of whole tunes of similar
length would need 15 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spectralgru.training.data.dataset import Corpus, Split, Words


@dataclass(frozen=True)
class Chunk:
    """T steps of B lanes. Words: [T, B], shared by all replicas. Notes: [R, T, B, ...] (or R = 1, shared)."""

    inputs: Tensor
    targets: Tensor
    weights: Tensor  # [R or 1, T, B], 0 where padding
    starts: Tensor | None  # [R or 1, T, B]
    count: float  # steps that are not padding, in all lanes of one replica

    def of_lanes(self, part: slice) -> "Chunk":
        """The same steps, for some lanes only."""
        words = self.inputs.dim() == 2
        inputs, targets = (t[:, part] if words else t[:, :, part] for t in (self.inputs, self.targets))
        starts = None if self.starts is None else self.starts[:, :, part]
        return Chunk(inputs, targets, self.weights[:, :, part], starts, self.count)


class WordStream:
    """The tokens of a split in B lanes; each token is predicted from all those before it in its lane."""

    def __init__(self, tokens: np.ndarray, lanes: int, steps: int, device: torch.device) -> None:
        inputs, targets = tokens[:-1].astype(np.int64), tokens[1:].astype(np.int64)
        positions, weights = _lay_out(len(inputs), lanes, steps)
        self.steps, self.lanes = steps, lanes
        self.inputs = torch.from_numpy(inputs[positions]).to(device)
        self.targets = torch.from_numpy(targets[positions]).to(device)
        self.weights = torch.from_numpy(weights).to(device)
        self.counts = weights.reshape(-1, steps, lanes).sum((1, 2))

    def __len__(self) -> int:
        return len(self.counts)

    def chunk(self, index: int) -> Chunk:
        """The `index`-th T steps of every lane."""
        part = slice(index * self.steps, (index + 1) * self.steps)
        return Chunk(
            self.inputs[part], self.targets[part], self.weights[None, part], None, float(self.counts[index])
        )


class NoteStream:
    """Tunes in B lanes; each time step is predicted from all those before it in its tune, the first from silence."""

    def __init__(
        self, notes: np.ndarray, positions: np.ndarray, starts: np.ndarray, weights: np.ndarray, steps: int,
        device: torch.device, replicas: Sequence[int] | np.ndarray = (0,),
    ) -> None:  # fmt: skip
        """`positions`, `starts` [S, L, B]: the time step of `notes` at each place, and whether a tune begins there.

        `replicas` [R]: which of the S orders each replica reads.
        """
        self.steps, self.lanes = steps, weights.shape[-1]
        self.notes = torch.from_numpy(notes).to(device)
        self.replicas = torch.as_tensor(replicas, device=device)
        self.positions = torch.from_numpy(positions).to(device)
        self.starts = torch.from_numpy(starts).to(device)
        self.weights = torch.from_numpy(weights).to(device)
        self.counts = weights.reshape(-1, steps, weights.shape[-1]).sum((1, 2))

    def __len__(self) -> int:
        return len(self.counts)

    def chunk(self, index: int) -> Chunk:
        """The `index`-th T steps of every lane."""
        part = slice(index * self.steps, (index + 1) * self.steps)
        positions, starts = (t[:, part][self.replicas] for t in (self.positions, self.starts))
        targets = self.notes[positions].float()
        inputs = self.notes[(positions - 1).clamp(min=0)].float() * ~starts.unsqueeze(-1)
        return Chunk(inputs, targets, self.weights[None, part], starts, float(self.counts[index]))


def training_stream(
    corpus: Corpus, seeds: Sequence[int], epoch: int, lanes: int, steps: int, device: torch.device
) -> WordStream | NoteStream:
    """The training split for an epoch: words in reading order, tunes in an order drawn from each replica's seed."""
    if isinstance(corpus, Words):
        return WordStream(corpus.train, lanes, steps, device)
    layout, weights = _lay_out(len(corpus.train), lanes, steps)
    begins = np.cumsum(corpus.train_lengths) - corpus.train_lengths
    is_start = np.zeros(len(corpus.train), bool)
    is_start[begins] = True
    distinct, replicas = np.unique(seeds, return_inverse=True)
    orders = []
    for seed in distinct:
        tunes = np.random.default_rng([seed, 1, epoch]).permutation(len(begins))
        orders.append(
            np.concatenate([np.arange(begins[t], begins[t] + corpus.train_lengths[t]) for t in tunes])
        )
    order = np.stack(orders)
    return NoteStream(
        corpus.train, order[:, layout], is_start[order][:, layout], weights, steps, device, replicas
    )


def evaluation_stream(
    corpus: Corpus, split: Split, lanes: int, steps: int, device: torch.device
) -> WordStream | NoteStream:
    """A split for evaluation, shared by all replicas: words in lanes, every tune whole and from a zero state."""
    data = corpus.split(split)
    if isinstance(corpus, Words):
        return WordStream(data, lanes, steps, device)
    lengths = corpus.lengths(split)
    begins = np.cumsum(lengths) - lengths
    members: list[list[int]] = [[] for _ in range(lanes)]
    filled = np.zeros(lanes, np.int64)
    for tune in np.argsort(-lengths, kind="stable"):  # longest first, each to the emptiest lane
        lane = int(filled.argmin())
        members[lane].append(int(tune))
        filled[lane] += lengths[tune]
    length = -(-int(filled.max()) // steps) * steps
    positions = np.zeros((length, lanes), np.int64)
    starts = np.zeros((length, lanes), bool)
    weights = np.zeros((length, lanes), np.float32)
    for lane, tunes in enumerate(members):
        at = 0
        for tune in tunes:
            end = at + lengths[tune]
            positions[at:end, lane] = np.arange(begins[tune], begins[tune] + lengths[tune])
            starts[at, lane] = True
            weights[at:end, lane] = 1
            at = end
    return NoteStream(data, positions[None], starts[None], weights, steps, device)


def _lay_out(total: int, lanes: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions [L, B] of a stream of `total` steps cut into lanes, and weights [L, B]; L a multiple of `steps`.

    Padding repeats the last position with weight 0. It is at the ends of lanes, where no real step follows it.
    """
    per_lane = -(-total // lanes)
    length = -(-per_lane // steps) * steps
    inside = np.arange(length)[:, None] < per_lane
    positions = np.arange(length)[:, None] + np.arange(lanes)[None] * per_lane
    inside = inside & (positions < total)
    return np.where(inside, positions, total - 1), inside.astype(np.float32)
