"""The gradient of a table of words: a sum for each row that a step has looked up, and none for the others."""

import torch
from torch import Tensor


def slots(ids: Tensor) -> Tensor:
    """The rank [N] of each of `ids` [N] among the distinct ones, in ascending order."""
    ordered, order = ids.sort(stable=True)
    places = ordered.diff(prepend=ordered[:1]).ne(0).cumsum(0)
    return torch.empty_like(order).scatter_(0, order, places)


def row_sums(gradient: Tensor, slot: Tensor) -> Tensor:
    """Sums [R, N, H] of the gradients [R, N, H] of equal rows, each at its slot, followed by zeros.

    They are added in the order of N, as in a whole table, and have the same norm to the last bit if H is a multiple of
    a vector register's width.
    """
    return torch.zeros_like(gradient).index_add_(1, slot, gradient)


def move_rows_(table: Tensor, ids: Tensor, slot: Tensor, sums: Tensor, factor: Tensor) -> None:
    """Subtract its sum times `factor` [R, 1, 1] from every row of `table` [R, V, H] that is among `ids`."""
    rows = table.index_select(1, ids)
    rows.addcmul_(sums.index_select(1, slot), factor, value=-1)
    table.index_copy_(1, ids, rows)  # equal ids have equal rows
