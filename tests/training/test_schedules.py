"""Schedules of the learning rate: their shape, their first step, their resuming."""

import pytest
import torch

from tests.support.training import batches, make_brain
from training.checkpoints import AtomicCheckpointer
from training.schedules import StrictPlateau, WarmupCosine


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


def test_a_rate_follows_warm_up_and_cosine_as_torch_has_them():
    parameter = torch.zeros(1, requires_grad=True)
    ours, theirs = (torch.optim.SGD([parameter], lr=0.1) for _ in range(2))
    schedule = WarmupCosine(0.1, n_warmup_steps=10, total_steps=100, floor=0.01)
    warm = torch.optim.lr_scheduler.LinearLR(theirs, 1e-9, total_iters=10)
    # the published cosine begins after the warm-up and ends with the training
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 90, eta_min=0.1 * 0.01)
    chain = torch.optim.lr_scheduler.SequentialLR(theirs, [warm, cosine], milestones=[10])
    for _ in range(100):
        theirs.step()
        chain.step()
        schedule(ours)
        # ours is one of 90 steps longer, so that the last step of all is not lost
        assert ours.param_groups[0]["lr"] == pytest.approx(chain.get_last_lr()[0], abs=0.1 / 50)
    assert ours.param_groups[0]["lr"] == pytest.approx(0.001, rel=0.05)


def test_the_cosine_begins_and_ends_where_its_fractions_say():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = WarmupCosine(2.0, total_steps=100, warmup_fraction=0.1, floor=0.25)
    rates = [schedule(optimizer)[1] for _ in range(120)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert max(rates) == rates[9] == pytest.approx(2.0)
    assert rates[100:] == pytest.approx([0.5] * 20) and rates[99] == pytest.approx(0.5, abs=1e-2)


def test_equal_values_halve_the_rate_after_the_patience_also_over_a_resume(tmp_path):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)

    def rate(epoch, value):
        plateau = StrictPlateau(patience=4, dont_halve_until_epoch=0)
        checkpointer = AtomicCheckpointer(tmp_path, recoverables={"plateau": plateau})
        checkpointer.recover_if_possible()
        _, after = plateau([optimizer], epoch, value)
        checkpointer.save_and_keep_only()
        return after

    assert [rate(epoch, 5.0) for epoch in range(1, 7)] == [1.0] * 5 + [0.5]
    # a lower value is a gain
    assert rate(7, 4.0) == 1.0
