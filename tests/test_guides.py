"""The guides, with encoders whose output is known."""

import pytest
import torch
from pyro import poutine

from zoo.context import seeded
from zoo.guides import FullRankNormal, MeanFieldNormal
from zoo.models.mixture import _kmeans_plus_plus


def fn_of(guide, x):
    with seeded(0):
        return poutine.trace(guide).get_trace(x).nodes["z"]["fn"]


def test_the_full_rank_guide_has_the_covariance_its_encoder_says():
    rows = torch.tensor([[1.0, 2.0], [0.5, 9.0], [0.3, -0.7]])  # mean; rows of T, the diagonal in logs
    fn = fn_of(FullRankNormal(lambda x: rows.expand(len(x), 3, 2)), torch.zeros(4, 7))
    factor = torch.tensor([[torch.tensor(0.5).exp(), 0.0], [0.3, torch.tensor(-0.7).exp()]])
    torch.testing.assert_close(fn.mean, rows[0].expand(4, 2))
    torch.testing.assert_close(fn.covariance_matrix[0], factor @ factor.T)
    assert abs(fn.covariance_matrix[0, 0, 1]) > 0.1


def test_the_mean_field_guide_has_the_variances_its_encoder_says():
    rows = torch.tensor([[1.0, 2.0], [-1.0, 0.5]])
    fn = fn_of(MeanFieldNormal(lambda x: rows.expand(len(x), 2, 2)), torch.zeros(4, 7))
    torch.testing.assert_close(fn.variance[0], rows[1].exp())


def test_kmeans_plus_plus_finds_far_clusters_however_small():
    with seeded(0):
        centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
        x = torch.cat([c + torch.randn(n, 2) for c, n in zip(centres, (200, 5, 5), strict=True)])
        found = [len(torch.cdist(_kmeans_plus_plus(x, 3), centres).argmin(1).unique()) for _ in range(50)]
    assert sum(count == 3 for count in found) >= 45  # by uniform draws about one in two hundred


@pytest.mark.parametrize("rows", [5, 1])
def test_kmeans_plus_plus_survives_data_with_fewer_points_than_centres(rows):
    with seeded(0):
        assert _kmeans_plus_plus(torch.ones(rows, 2), 7).shape == (7, 2)
