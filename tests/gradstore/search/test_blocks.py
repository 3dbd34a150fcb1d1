from __future__ import annotations

import numpy as np
import pytest
import torch

from gradstore.search.blocks import Block, Stager, one_ahead, read_blocks
from gradstore.search.searchable import Searchable
from gradstore.testing.index_kit import MemoryRows

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


def blocks_of(rows: MemoryRows, block_rows: int) -> list[Block]:
    norms = rows.exact_norms.astype(np.float64)
    return list(read_blocks(Searchable.of(rows), lambda of: norms[:, of], None, block_rows))


@pytest.mark.parametrize("device", DEVICES)
def test_blocks_reach_the_device_in_order_though_two_buffers_take_turns(device: str) -> None:
    rows = MemoryRows.random(101)
    seen = list(Stager(device).staged(iter(blocks_of(rows, 10))))
    np.testing.assert_array_equal(np.concatenate([block.rows for block, _ in seen]), np.arange(101))
    on_device = torch.cat([units.cpu() for _, units in seen], dim=1)
    np.testing.assert_array_equal(on_device.numpy(), rows.units)


def test_the_next_block_is_begun_before_this_one_is_handed_out() -> None:
    given = []

    def source() -> object:
        for block in blocks_of(MemoryRows.random(40), 10):
            given.append(int(block.rows[0]))
            yield block

    staged = Stager("cpu").staged(source())  # type: ignore[arg-type]
    assert next(staged)[0].rows[0] == 0
    assert given == [0, 10]


def test_a_reader_ahead_gives_every_block_once_and_passes_errors_on() -> None:
    blocks = blocks_of(MemoryRows.random(55), 10)
    assert list(one_ahead(iter(blocks))) == blocks

    def broken() -> object:
        yield blocks[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(one_ahead(broken()))  # type: ignore[arg-type]


def test_weights_are_screened_relative_to_the_largest_of_the_block() -> None:
    rows = MemoryRows.random(20)
    block = blocks_of(rows, 20)[0]
    np.testing.assert_allclose(block.screen_weights * block.scale, rows.exact_norms, rtol=1e-6)
    assert block.screen_weights.max() == 1
