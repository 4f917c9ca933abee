"""GPTQ against the paper's recursion in plain loops, and by what it is for: the error of products."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge.export.block_quantization import BlockLayout
from sabiyarn_edge.export.gptq import DAMPING, round_by_gptq
from sabiyarn_edge.export.scale_search import round_to_nearest_entries, round_to_searched, searched_scales
from tests.export.models import TABLE


def problem(seed: int, rows: int, width: int, tokens: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, inputs that depend on each other and differ in size, and the mean of x x^T."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((rows, width)).astype(np.float32)
    inputs = (
        rng.standard_normal((tokens, width))
        @ rng.standard_normal((width, width))
        * rng.exponential(size=width)
    )
    return weights, inputs, inputs.T @ inputs / tokens


def twin(weights: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Optimal brain quantization, one weight after another: round it, solve for the best change of all weights that are
    left, and take it and its row and column out of H. No Cholesky, no batches."""
    scales = searched_scales(weights, np.diag(hessian).astype(np.float32))
    order = np.argsort(-np.diag(hessian), kind="stable")
    left, out = weights.astype(np.float64), np.zeros(weights.shape)
    damped = hessian + DAMPING * np.diag(hessian).mean() * np.eye(len(hessian))
    for step, column in enumerate(order):
        rest = order[step:]
        inverse = np.linalg.inv(damped[np.ix_(rest, rest)])
        values = scales.steps()[:, column // 16, None].astype(np.float64) * np.array(TABLE)
        nearest = np.abs(values - left[:, column, None]).argmin(axis=1)
        out[:, column] = values[np.arange(len(values)), nearest]
        error = (left[:, column] - out[:, column]) / inverse[0, 0]
        left[:, rest] -= error[:, None] * inverse[0]
    return out


@pytest.mark.parametrize(("rows", "width", "size"), [(3, 16, 16), (8, 64, 16), (5, 192, 64)])
def test_equals_the_twin(rows: int, width: int, size: int) -> None:
    weights, _, hessian = problem(width, rows, width)
    layout = BlockLayout(4, size)
    restored = round_by_gptq(weights, hessian, layout).restored()
    expected = twin(weights, hessian)
    # float32 against float64: a weight may fall on the other side of a border, and those after it with it.
    same = np.isclose(restored, expected, rtol=1e-5, atol=1e-6)
    assert same.mean() > 0.98
    assert product_error(weights, restored, hessian) == pytest.approx(
        product_error(weights, expected, hessian), rel=0.02
    )


def product_error(weights: np.ndarray, restored: np.ndarray, hessian: np.ndarray) -> float:
    """Mean square of the products' errors, summed over outputs."""
    errors = restored.astype(np.float64) - weights
    return float(np.einsum("ri,ij,rj->", errors, hessian, errors))


@pytest.mark.parametrize("size", [32, 128])
def test_products_are_nearer_than_by_rounding_each_weight(size: int) -> None:
    weights, inputs, hessian = problem(7, 64, 128)
    layout = BlockLayout(4, size)
    errors = {
        method.__name__: product_error(weights, method(weights, layout).restored(), hessian)
        for method in (round_to_nearest_entries, round_to_searched)
    }
    by_gptq = round_by_gptq(weights, hessian, layout).restored()
    error = product_error(weights, by_gptq, hessian)
    assert error == pytest.approx(((inputs @ (by_gptq - weights).T) ** 2).mean(axis=0).sum(), rel=1e-6)
    assert error < 0.5 * min(errors.values())


def test_inputs_without_correlation_leave_the_nearest() -> None:
    """Then no column can make up for another."""
    weights, _, _ = problem(1, 10, 64)
    layout = BlockLayout(4, 32)
    np.testing.assert_array_equal(
        round_by_gptq(weights, np.eye(64), layout).restored(), round_to_searched(weights, layout).restored()
    )


@pytest.mark.parametrize(
    "hessian", [np.zeros((16, 16)), np.diag([1.0] * 4 + [0.0] * 12)], ids=["none", "some"]
)
def test_inputs_that_are_always_zero(hessian: np.ndarray) -> None:
    weights, _, _ = problem(2, 4, 16)
    restored = round_by_gptq(weights, hessian, BlockLayout(4, 16)).restored()
    assert np.isfinite(restored).all()
    assert np.abs(restored - weights)[:, :4].max() < np.ptp(weights)
