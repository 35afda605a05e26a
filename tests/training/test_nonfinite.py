"""A loss or a gradient that is no number costs its batch, and never the weights."""

import logging
import math

import pytest
import torch

from modules.asr.normalization import GlobalNormalization
from tests.support.training import Regression, batches, make_brain
from training.nonfinite import RunningStatistics, finite_gradients


class Diverging(Regression):
    """Its loss, or its gradients, of some batches are no numbers."""

    bad, worth, only_gradients = (), math.nan, False
    seen = 0

    def compute_objectives(self, predictions, batch, stage):
        loss = super().compute_objectives(predictions, batch, stage)
        if not torch.is_grad_enabled():
            return loss
        self.seen += 1
        if self.seen not in self.bad:
            return loss
        if self.only_gradients:
            # the root's slope at 0 is infinite, and the loss stays
            return loss + (0 * predictions).abs().sum().sqrt()
        return loss * self.worth


def run(folder, bad, count=6, **options):
    attributes = {
        name: options.pop(name) for name in ("worth", "only_gradients") if name in options
    }
    torch.manual_seed(0)
    brain = make_brain(folder, brain_class=Diverging, **options)
    vars(brain).update(attributes, bad=bad)
    brain.fit(brain.hparams.epoch_counter, batches(count), batches(1))
    return brain


def is_finite(brain):
    state = brain.optimizer.state_dict()["state"].values()
    tensors = [*brain.modules.parameters(), *(v for one in state for v in one.values())]
    return all(torch.isfinite(torch.as_tensor(value)).all() for value in tensors)


@pytest.mark.parametrize("worth", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("bad", [(1,), (2, 3, 6)])
def test_a_loss_that_is_no_number_is_skipped(tmp_path, caplog, worth, factor, bad):
    with caplog.at_level(logging.WARNING):
        brain = run(tmp_path, bad, worth=worth, grad_accumulation_factor=factor)
    assert is_finite(brain) and brain.nonfinite_losses == len(bad)
    assert "the batch is skipped" in caplog.text


def test_gradients_that_are_no_numbers_are_skipped(tmp_path):
    brain = run(tmp_path, (2, 5), only_gradients=True)
    assert is_finite(brain) and brain.skipped_steps == 2 and brain.nonfinite_losses == 0


@pytest.mark.parametrize("only_gradients", [False, True])
def test_too_many_end_the_training_with_a_sentence(tmp_path, only_gradients):
    with pytest.raises(SystemExit, match="--nonfinite_patience 3 allows; there is no checkpoint"):
        run(tmp_path / "a", (1, 2, 3, 4), only_gradients=only_gradients)
    with pytest.raises(SystemExit, match="--nonfinite_patience 0 allows"):
        run(tmp_path / "b", (4,), nonfinite_patience=0, only_gradients=only_gradients)


def test_gradients_may_fail_for_ever_where_the_option_says_so(tmp_path):
    bad = tuple(range(1, 7))
    assert run(tmp_path, bad, only_gradients=True, skip_nonfinite_grads=True).skipped_steps == 6


def test_the_last_checkpoint_is_kept_and_finite(tmp_path):
    with pytest.raises(SystemExit, match="CKPT.* is the last checkpoint"):
        run(tmp_path, tuple(range(8, 13)), epochs=2)
    brain = make_brain(tmp_path, brain_class=Diverging, epochs=2)
    brain.on_fit_start()
    assert is_finite(brain)


def test_a_run_without_such_losses_is_what_it_was(tmp_path):
    brain, other = (run(tmp_path / name, ()) for name in "ab")
    for one, two in zip(brain.modules.parameters(), other.modules.parameters(), strict=True):
        assert torch.equal(one, two)


def test_statistics_of_a_bad_batch_are_taken_back():
    norm, normalize = torch.nn.BatchNorm1d(4), GlobalNormalization()
    modules = torch.nn.ModuleList([norm, normalize])
    statistics, features = RunningStatistics(modules), torch.randn(3, 10, 4)
    for _ in range(2):
        norm(features[:, 0])
        normalize(features, torch.ones(3), epoch=1)
        statistics.keep()
        before = norm.running_mean.clone(), normalize.glob_mean.clone(), normalize.count
        norm(features[:, 0] * torch.nan)
        normalize(features * torch.nan, torch.ones(3), epoch=1)
        statistics.restore()
        assert torch.equal(norm.running_mean, before[0])
        assert torch.equal(normalize.glob_mean, before[1]) and normalize.count == before[2]


def test_large_gradients_are_finite():
    parameter = torch.nn.Parameter(torch.zeros(2))
    for value, finite in ((1e30, True), (math.inf, False), (math.nan, False)):
        parameter.grad = torch.tensor([1.0, value])
        assert finite_gradients([parameter]) == finite
