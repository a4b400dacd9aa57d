import math

import pytest
import torch

from deixis.models.base import check_signs, log_odds


def test_log_odds_when_by_hand_then_that():
    found = log_odds(torch.tensor([0.5, 0.75, 0.1]))
    assert found.tolist() == pytest.approx([0.0, math.log(3), -math.log(9)], abs=1e-6)


@pytest.mark.parametrize(("p", "value"), [(1.0, math.log(9999)), (0.0, -math.log(9999))])
def test_log_odds_when_sure_then_finite(p, value):
    assert log_odds(torch.tensor([p])).item() == pytest.approx(value, abs=1e-3)


def test_log_odds_when_bfloat16_then_float32():
    assert log_odds(torch.tensor([0.5], dtype=torch.bfloat16)).dtype == torch.float32


def test_check_signs_when_extreme_or_no_number_then_within_12():
    found = check_signs(torch.tensor([1.5, 1e9, -1e9, torch.inf, -torch.inf, torch.nan]))
    assert found.tolist() == [1.5, 12, -12, 12, -12, 0]
