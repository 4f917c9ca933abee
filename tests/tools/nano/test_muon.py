from __future__ import annotations

import pytest
import torch

from tools.nano.muon import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)], ids=["tall", "wide", "square"])
def test_orthogonalized_keeps_singular_vectors_and_levels_singular_values(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)  # the oracle: matrix = u s vt
    values = u.T @ orthogonalized(matrix) @ vt.T
    diagonal = values.diagonal()
    assert diagonal.min() > 0.3 and diagonal.max() < 1.3
    torch.testing.assert_close(values, torch.diag(diagonal), atol=1e-4, rtol=0)


def test_a_step_has_the_size_of_the_learning_rate_whatever_the_gradient():
    for scale in (1e-3, 1e3):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.zeros(32, 8))
        weight.grad = scale * torch.randn(32, 8)
        Muon([weight], lr=0.1).step()
        largest = torch.linalg.matrix_norm(weight.detach(), ord=2)
        assert largest == pytest.approx(0.1 * (32 / 8) ** 0.5, rel=0.3)


def test_it_fits_a_linear_map():
    torch.manual_seed(0)
    wanted, inputs = torch.randn(6, 4), torch.randn(64, 4)
    weight = torch.nn.Parameter(torch.zeros(6, 4))
    muon = Muon([weight], lr=0.1)
    for step in range(200):
        muon.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        muon.zero_grad()
        ((inputs @ weight.T - inputs @ wanted.T) ** 2).mean().backward()
        muon.step()
    torch.testing.assert_close(weight.detach(), wanted, atol=0.05, rtol=0)


def test_parameters_without_gradient_stay():
    weight = torch.nn.Parameter(torch.ones(3, 3))
    Muon([weight], lr=0.1).step()
    assert torch.equal(weight.detach(), torch.ones(3, 3))
