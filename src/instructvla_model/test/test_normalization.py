"""Quantile normalisation against the plain equation, and its inverse."""

import json

import numpy as np
import pytest

from instructvla_model.normalization import (
    FieldStatistics,
    Statistics,
    StatisticsError,
    compute,
    field_from_dict,
    statistics_from_dict,
)

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(500, 3)) * [1.0, 0.1, 5.0] + [0.0, 2.0, -1.0]


def test_normalising_is_the_clipped_quantile_equation():
    stats = compute(DATA)
    q01, q99 = np.quantile(DATA, [0.01, 0.99], axis=0)
    expected = np.clip(2 * (DATA - q01) / (q99 - q01 + 1e-8) - 1, -1, 1)
    np.testing.assert_allclose(stats.normalize(DATA), expected, atol=1e-6)


def test_the_inverse_returns_what_lay_inside_the_quantiles():
    stats = compute(DATA)
    inside = ((np.array(stats.q01) <= DATA) & (np.array(stats.q99) >= DATA)).all(1)
    assert inside.sum() > 400
    np.testing.assert_allclose(stats.unnormalize(stats.normalize(DATA[inside])), DATA[inside], atol=1e-5)


def test_outliers_come_back_as_the_quantiles():
    stats = compute(DATA)
    np.testing.assert_allclose(stats.unnormalize(np.full(3, 7.0)), stats.q99, atol=1e-6)
    np.testing.assert_allclose(stats.unnormalize(stats.normalize(DATA[:1] * 0 - 99)), [stats.q01], atol=1e-6)


def test_unmasked_dimensions_pass_unchanged():
    stats = compute(DATA, mask=[True, True, False])
    row = np.array([0.1, 2.0, 0.7])
    assert stats.normalize(row)[2] == np.float32(0.7)
    assert stats.unnormalize(row)[2] == np.float32(0.7)


def test_a_dimension_that_never_moves_becomes_zero():
    data = DATA.copy()
    data[:, 1] = 4.0
    assert (compute(data).normalize(data)[:, 1] == 0).all()


def test_f18_the_span_floor_widens_about_the_middle():
    plain, floored = compute(DATA), compute(DATA, span_floor=[0.0, 3.0, 0.0])
    assert floored.q99[1] - floored.q01[1] == pytest.approx(3.0)
    assert floored.q99[1] + floored.q01[1] == pytest.approx(plain.q99[1] + plain.q01[1])
    assert floored.q01[0] == pytest.approx(plain.q01[0])


def test_statistics_survive_json():
    stats = Statistics(compute(DATA, mask=[True, False, True]), compute(DATA))
    assert statistics_from_dict(json.loads(json.dumps(stats.to_dict()))) == stats
    alone = Statistics(compute(DATA))
    assert statistics_from_dict(json.loads(json.dumps(alone.to_dict()))) == alone


def test_quantiles_alone_are_enough():
    field = field_from_dict({"q01": [0.0], "q99": [2.0]})
    np.testing.assert_allclose(field.normalize(np.array([1.5])), [0.5], atol=1e-6)


@pytest.mark.parametrize("data", [np.zeros((0, 3)), np.zeros(3), np.full((4, 2), np.nan)])
def test_data_without_finite_rows_is_refused(data):
    with pytest.raises(StatisticsError, match="data of shape"):
        compute(data)


def test_f18_incomplete_or_unusable_statistics_are_refused():
    with pytest.raises(StatisticsError, match="q01"):
        field_from_dict({"q99": [1.0]})
    with pytest.raises(StatisticsError, match="action"):
        statistics_from_dict({})
    with pytest.raises(StatisticsError, match="one length"):
        field_from_dict({"q01": [0.0, 1.0], "q99": [1.0]})
    with pytest.raises(StatisticsError, match="NaN"):
        FieldStatistics((float("nan"),), (1.0,), (0.0,), (1.0,), (0.0,), (1.0,), (True,))


def test_vectors_of_another_length_are_refused():
    with pytest.raises(StatisticsError, match="vector of 2 for statistics of 3"):
        compute(DATA).normalize(np.zeros(2))
