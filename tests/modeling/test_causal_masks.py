"""Causal masks on demand."""

from __future__ import annotations

import pytest
import torch

from sabiyarn_edge.modeling.causal_masks import CausalMaskCache

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("first", "count"), [(0, 1), (0, 4), (3, 1), (5, 3), (0, 8), (7, 2), (60, 40)], ids=str
)
def test_rows_see_themselves_and_all_before(first, count):
    mask = CausalMaskCache(largest=100, smallest=4).rows(first, count, CPU)
    assert mask.tolist() == [[key <= first + query for key in range(first + count)] for query in range(count)]


def test_sizes_are_powers_of_two_made_once_and_kept():
    masks = CausalMaskCache(largest=100, smallest=4)
    assert (masks.sizes, masks.nbytes) == ([], 0)
    for end in (1, 4, 3, 17, 20, 32):
        masks.rows(0, end, CPU)
    assert masks.sizes == [4, 32]
    assert masks.nbytes == 4 * 4 + 32 * 32
    assert masks.rows(2, 2, CPU).data_ptr() == masks.rows(2, 1, CPU).data_ptr()  # views of one mask
    masks.rows(0, 65, CPU)
    assert masks.sizes == [4, 32, 100]  # not past the largest
    masks.free()
    assert masks.nbytes == 0


@pytest.mark.parametrize(("length", "size"), [(1, 4096), (4096, 4096), (4097, 8192)])
def test_sizes_with_a_larger_smallest(length, size):
    masks = CausalMaskCache(largest=32768, smallest=4096)
    masks.rows(length - 1, 1, CPU)
    assert masks.sizes == [size]
    assert masks.nbytes == size * size
