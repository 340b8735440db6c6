"""What is read from sums equals what the whole lists of guesses and targets say."""

import numpy as np
import pytest
import torch

from app.criterions.sentence_prediction import correlation_sums
from app.interfaces import Loss
from app.meters import Meters, agreement


def meters(batches: list[dict[str, torch.Tensor | float]]) -> dict[str, float]:
    made = Meters()
    made.add([Loss(torch.zeros(()), 1, {"loss": 0.0, "ntokens": 1, **logs}) for logs in batches])
    return made.means()


def test_pearson_of_batches_is_that_of_all() -> None:
    draw = np.random.default_rng(1)
    x = draw.normal(3, 2, 50)
    y = x + draw.normal(0, 1, 50)
    parts = [correlation_sums(torch.tensor(x[i : i + 20]), torch.tensor(y[i : i + 20])) for i in range(0, 50, 20)]
    assert meters(parts)["pearson"] == pytest.approx(100 * np.corrcoef(x, y)[0, 1], abs=1e-6)


def test_counts_of_two_classes() -> None:
    found = meters([{"n_00": 5, "n_01": 1, "n_10": 2, "n_11": 3}, {"n_00": 1, "n_01": 1, "n_10": 0, "n_11": 1}])
    guesses, targets = [0] * 8 + [1] * 6, [0] * 6 + [1] * 2 + [0] * 2 + [1] * 4
    assert found["f1"] == pytest.approx(100 * 2 * 4 / (2 * 4 + 2 + 2))
    assert found["mcc"] == pytest.approx(100 * np.corrcoef(guesses, targets)[0, 1])


def test_where_all_are_alike_there_is_no_agreement() -> None:
    ones = torch.ones(3, dtype=torch.float64)
    assert meters([correlation_sums(ones, ones)])["pearson"] == 0
    assert agreement({"n_00": 4.0, "n_01": 0.0, "n_10": 0.0, "n_11": 0.0}) == {"f1": 0.0, "mcc": 0.0}
    assert agreement({"loss": 1.0}) == {}
