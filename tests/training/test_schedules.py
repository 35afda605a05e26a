"""Schedules of the learning rate: their shape, their first step, their resuming."""

import pytest
import torch

from tests.support.training import batches, make_brain
from training.schedules import WarmupCosine


def test_first_step_is_taken_at_the_schedules_rate(tmp_path):
    schedule = WarmupCosine(lr_initial=0.1, n_warmup_steps=10)
    brain = make_brain(tmp_path, schedule=schedule, epochs=4)
    brain.plan_schedule(batches=3)
    assert schedule.total_steps == 12
    rates = []
    brain.on_fit_start()
    brain.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[1]["lr"])
    )
    for batch in list(batches()) * 4:
        brain.step += 1
        brain.fit_batch(batch)
    expected = [0.01 * step for step in range(1, 11)]
    assert rates[:10] == pytest.approx(expected)
    assert 0 < rates[11] < rates[10] < 0.1


def test_schedule_resumes_where_it_was(tmp_path):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = WarmupCosine(1.0, 3, 20)
    for _ in range(7):
        schedule(optimizer)
    schedule.save(tmp_path / "s.ckpt")
    other = WarmupCosine(1.0, 3, 20)
    other.load(tmp_path / "s.ckpt")
    assert other(optimizer) == schedule(optimizer)


def test_a_schedule_without_an_end_is_refused():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ValueError, match="set total_steps"):
        WarmupCosine(1.0, 3)(optimizer)
