"""SPSIL, SMCIM Eq. 7 to 11: values, gradients, signs and safety, worked out on paper."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.models.smcim.criterion import MAX_EXPONENT, difficulty, l1_loss, self_paced

LAMBDA = 0.75
SIGMA = 2.5


def scalar(value):
    return torch.tensor(value, requires_grad=True)


def gradients(loss, sigma, *, detach=False, lambda_=LAMBDA):
    """Of J by L and by sigma."""
    one, two = scalar(float(loss)), scalar(float(sigma))
    self_paced(one, two, lambda_, detach=detach).backward()
    return (one.grad.item(), two.grad.item())


# L1


def test_l1_when_worked_by_hand_then_the_sum_of_four_differences_of_each_box():
    predicted = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0, 0, 0, 0], [0.3, 0.3, 0.3, 0.3]])
    target = torch.tensor([[0.4, 0.7, 0.5, 0.0], [1, 1, 1, 1], [0.3, 0.3, 0.3, 0.3]])
    assert l1_loss(predicted, target).tolist() == pytest.approx([0.1 + 0.2 + 0.3 + 0.4, 4, 0])


# values


@pytest.mark.parametrize(("loss", "expected"), [(0.0, -0.75), (0.3, -0.4565), (0.75, 0.0), (2.0, 2.3706)])
@pytest.mark.parametrize("detach", [False, True])
def test_self_paced_when_sigma_is_the_papers_then_the_values_of_eq_11(loss, expected, detach):
    value = self_paced(torch.tensor([loss]), torch.tensor(SIGMA), LAMBDA, detach=detach)
    assert value.item() == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("loss", "weight"), [(0.0, 1.0), (0.3, 1.015), (1.3, 1.31), (2.0, 1.90), (4.0, 12.9)])
def test_difficulty_when_worked_by_hand_then_it_grows_with_the_loss(loss, weight):
    assert difficulty(torch.tensor([loss]), torch.tensor(SIGMA)).item() == pytest.approx(weight, rel=5e-3)


@pytest.mark.parametrize(("sigma", "loss", "value"), [(0.45, 0.573, -0.90), (0.3, 0.684, -11.9)])
def test_self_paced_when_sigma_is_too_small_then_a_wrong_box_is_worth_more_than_a_right_one(sigma, loss, value):
    wrong, right = self_paced(torch.tensor([loss, 0.0]), torch.tensor(sigma), LAMBDA).tolist()
    assert wrong == pytest.approx(value, rel=5e-3)
    assert wrong < right == -0.75


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 4), st.floats(0.6, 5), st.floats(0, 2))
def test_total_of_both_when_any_losses_then_eq_11_term_by_term(loss, sigma, lambda_):
    weight = math.exp(min(loss**2 / sigma**2, MAX_EXPONENT))
    value = self_paced(torch.tensor([loss]), torch.tensor(sigma), lambda_).item()
    assert value == pytest.approx(weight * loss - lambda_ * weight, rel=1e-4, abs=1e-5)


# gradients


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 2), st.floats(0.65, 5))
def test_gradients_when_exponent_is_below_its_limit_then_the_closed_forms(loss, sigma):
    weight = math.exp(loss**2 / sigma**2)
    by_loss, by_sigma = gradients(loss, sigma)
    assert by_loss == pytest.approx(weight * (1 + 2 * loss * (loss - LAMBDA) / sigma**2), rel=1e-3, abs=1e-5)
    assert by_sigma == pytest.approx(-(loss - LAMBDA) * 2 * loss**2 / sigma**3 * weight, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(("loss", "factor"), [(0.3, 0.971), (1.3, 1.61), (2.0, 3.41), (4.0, 66.7)])
def test_gradient_by_loss_when_sigma_is_the_papers_then_below_1_for_easy_and_above_for_hard_samples(loss, factor):
    assert gradients(loss, SIGMA)[0] == pytest.approx(factor, rel=5e-3)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 4), st.floats(0.6, 5))
def test_gradients_when_detached_then_by_loss_the_difficulty_and_by_sigma_as_before(loss, sigma):
    attached, detached = gradients(loss, sigma), gradients(loss, sigma, detach=True)
    assert detached[0] == pytest.approx(math.exp(min(loss**2 / sigma**2, MAX_EXPONENT)), rel=1e-4)
    assert detached[1] == attached[1]


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.5])
def test_sigma_when_all_losses_lie_on_one_side_of_lambda_then_descent_shrinks_or_widens_it(sigma):
    assert gradients(0.7, sigma)[1] > 0  # descent goes against it
    assert gradients(0.8, sigma)[1] < 0
    assert gradients(0.75, sigma)[1] == 0
    assert gradients(0.0, sigma)[1] == 0


@pytest.mark.parametrize(("sigma", "low", "high"), [(0.5, 0.251, 0.499), (0.4, 0.129, 0.621)])
def test_gradient_by_loss_when_sigma_is_below_lambda_over_root_2_then_wrong_between_these(sigma, low, high):
    assert gradients(low - 0.005, sigma)[0] > 0
    assert gradients(low + 0.005, sigma)[0] < 0
    assert gradients(high - 0.005, sigma)[0] < 0
    assert gradients(high + 0.005, sigma)[0] > 0
    assert gradients((low + high) / 2, sigma, detach=True)[0] > 1


@settings(max_examples=80, deadline=None)
@given(st.floats(0, 4), st.floats(0.6, 5), st.booleans())
def test_gradient_by_loss_when_sigma_is_at_least_the_floor_then_training_lowers_every_loss(loss, sigma, detach):
    # the bracket is least at lambda / 2 and sigma 0.6: 1 - 0.75^2 / (2 * 0.36) = 0.22
    assert gradients(loss, sigma, detach=detach)[0] >= 0.21


# safety


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_self_paced_when_losses_are_large_in_half_precision_then_finite_and_float32(dtype):
    losses = torch.tensor([4.0, 2.0, 0.3], dtype=dtype, requires_grad=True)
    sigma = scalar(0.6)
    with torch.autocast("cpu", dtype):
        value = self_paced(losses, sigma, LAMBDA)
        value.sum().backward()
    assert value.dtype == torch.float32
    assert value[0].item() == pytest.approx((4 - LAMBDA) * math.exp(MAX_EXPONENT), rel=1e-4)
    assert torch.isfinite(value).all()
    assert torch.isfinite(losses.grad).all()
    assert math.isfinite(sigma.grad)


def test_self_paced_when_below_bfloat16s_digits_then_the_small_difference_stays():
    with torch.autocast("cpu", torch.bfloat16):
        value = self_paced(torch.tensor([0.751]), torch.tensor(SIGMA), LAMBDA)
    assert value.item() == pytest.approx(0.001 * math.exp(0.751**2 / 6.25), rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1e30), st.floats(0.1, 1e3))
def test_self_paced_when_loss_is_absurd_then_value_and_gradients_are_finite(loss, sigma):
    assert math.isfinite(self_paced(torch.tensor(loss), torch.tensor(sigma), LAMBDA).item())
    assert all(math.isfinite(one) for one in gradients(loss, sigma))


def test_exponent_when_sigma_is_1_27_or_more_then_its_limit_never_acts_on_a_box_loss():
    hardest = torch.tensor([4.0])
    assert difficulty(hardest, torch.tensor(1.27)).item() == pytest.approx(math.exp(16 / 1.27**2), rel=1e-5)
    assert difficulty(hardest, torch.tensor(1.2)).item() == pytest.approx(math.exp(MAX_EXPONENT), rel=1e-5)


def test_self_paced_when_a_loss_is_nan_then_so_is_the_value():
    assert math.isnan(self_paced(torch.tensor([math.nan]), torch.tensor(SIGMA), LAMBDA).item())
