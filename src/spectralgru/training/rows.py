"""The gradient of a table from its rows that a step has read: a sum for each of them, and none for all the others."""

import torch
from torch import Tensor


def slots(ids: Tensor) -> Tensor:
    """The place [N] of each of `ids` [N] among those that differ, in ascending order."""
    ordered, order = ids.sort(stable=True)
    places = ordered.diff(prepend=ordered[:1]).ne(0).cumsum(0)
    return torch.empty_like(order).scatter_(0, order, places)


def row_sums(gradient: Tensor, slot: Tensor) -> Tensor:
    """Sums [R, N, H] of the gradients [R, N, H] of rows that are the same, at their slots; zeros behind them.

    Added in the order of N, as in a table; of the same norm to the bit where H is a multiple of a vector's width.
    """
    return torch.zeros_like(gradient).index_add_(1, slot, gradient)


def move_rows_(table: Tensor, ids: Tensor, slot: Tensor, sums: Tensor, factor: Tensor) -> None:
    """Subtract `factor` [R, 1, 1] times its sum from every row of `table` [R, V, H] that is among `ids`."""
    rows = table.index_select(1, ids)
    rows.addcmul_(sums.index_select(1, slot), factor, value=-1)
    table.index_copy_(1, ids, rows)  # the same for equal ids
