"""A table's gradient from the rows that were read, against the whole table's."""

import pytest
import torch

from spectralgru.training.clipping import gradient_norm
from spectralgru.training.rows import move_rows_, row_sums, slots


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("runs", "size", "hidden"), [(1, 1000, 128), (3, 50, 64), (2, 7, 12), (1, 300, 650)])
def test_rows_move_as_those_of_a_whole_table_to_the_bit(threads, runs, size, hidden):
    torch.set_num_threads(threads)
    for seed in range(5):
        torch.manual_seed(seed)
        ids, table = torch.randint(size, (200,)), torch.randn(runs, size, hidden)
        gradient, factor = torch.randn(runs, 200, hidden), torch.rand(runs, 1, 1)
        whole = torch.zeros(runs, size, hidden).index_add_(1, ids, gradient)
        slot = slots(ids)
        sums = row_sums(gradient, slot)
        assert torch.equal(sums.index_select(1, slot), whole.index_select(1, ids))
        torch.testing.assert_close(gradient_norm([sums]), gradient_norm([whole]), rtol=1e-6, atol=0)
        if hidden % 16 == 0:
            assert torch.equal(gradient_norm([sums]), gradient_norm([whole]))
        moved = table.clone()
        move_rows_(moved, ids, slot, sums, factor)
        assert torch.equal(moved, table.addcmul(whole, factor, value=-1))
    torch.set_num_threads(1)


def test_only_the_rows_that_were_read_move_when_a_run_diverges():
    table, ids = torch.zeros(1, 6, 4), torch.tensor([4, 1, 4])
    sums = row_sums(torch.ones(1, 3, 4), slots(ids))
    assert sums[0, :, 0].tolist() == [1, 2, 0]
    move_rows_(table, ids, slots(ids), sums, torch.full((1, 1, 1), torch.nan))
    assert table[0].isnan().all(-1).tolist() == [False, True, False, False, True, False]
