"""GPTQ: rounds a matrix column by column, and lets the columns that are left make up for each column's error.

What counts is not the error of the weights but that of the products: for inputs x it is e^T H e in each row, with e the
error of the row and H = mean of x x^T over calibration text. Columns go by falling H[i, i], so that those which matter
most have most columns left to correct them; scales are searched beforehand, so that this order needs no reordering at
run time.

Source: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", 2022, https://arxiv.org/abs/2210.17323, with the order and the fixed grids of its authors' later code.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from .block_quantization import BlockLayout, Floats
from .scale_search import searched_scales
from .table_quantization import BORDERS, SUB_BLOCK, TABLE, TableBlocks, TableScales

__all__ = ["round_by_gptq"]

DAMPING = 0.01
"""Added to H's diagonal, as a fraction of its mean: the paper's value. 0.002 and 0.05 measured alike."""

COLUMNS_AT_ONCE = 128
"""Corrections of columns further to the right are gathered for so many columns: one product, not 128 outer ones."""


def round_by_gptq(weights: Floats, hessian: NDArray[np.float64], layout: BlockLayout) -> TableBlocks:
    """Round weights [rows, width].

    Args:
        hessian: [width, width], mean of x x^T over the inputs x of the product.
    """
    importance = np.diag(hessian)
    scales = searched_scales(weights, importance.astype(np.float32))
    order = np.argsort(-importance, kind="stable")
    upper = _inverse_factor(hessian[np.ix_(order, order)])
    return TableBlocks(layout, _codes_in_order(weights, scales, order, upper), scales)


def _inverse_factor(hessian: NDArray[np.float64]) -> torch.Tensor:
    """Upper triangular U with U^T U = (H + damping)^-1; its rows tell how errors spread to later columns.

    Args:
        hessian: overwritten.
    """
    damped = torch.from_numpy(hessian)
    mean = float(damped.diagonal().mean()) or 1.0  # inputs that are all 0
    damped.diagonal().add_(DAMPING * mean)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()


def _codes_in_order(
    weights: Floats, scales: TableScales, order: NDArray[np.intp], upper: torch.Tensor
) -> NDArray[np.uint8]:
    """Codes [rows, width] of weights [rows, width], whose columns are rounded in `order`."""
    left = torch.from_numpy(weights.T[order])  # [width, rows]: a column of weights is contiguous
    steps = torch.from_numpy(scales.steps().T.copy())
    table, borders = torch.from_numpy(TABLE), torch.from_numpy(BORDERS)
    codes = np.empty((weights.shape[1], len(weights)), np.uint8)
    for begin in range(0, len(order), COLUMNS_AT_ONCE):
        end = min(begin + COLUMNS_AT_ONCE, len(order))
        errors = torch.empty(end - begin, len(weights))
        for i in range(begin, end):
            step = steps[int(order[i]) // SUB_BLOCK]
            code = torch.bucketize(torch.where(step == 0, 0.0, left[i] / step), borders)
            codes[order[i]] = code.numpy()
            errors[i - begin] = (left[i] - table[code] * step) / upper[i, i]
            left[i + 1 : end] -= upper[i, i + 1 : end, None] * errors[i - begin]
        left[end:] -= upper[begin:end, end:].T @ errors
    return np.ascontiguousarray(codes.T)
