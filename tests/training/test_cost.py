"""The cost of training: seconds and memory over epochs, resumes and processes."""

import torch

from tests.support.training import make_brain, train
from training.cost import TrainingCost, peak_memory_mb


def test_the_cost_of_training_adds_up_over_resumes_and_counts_no_validation(tmp_path):
    first = train(make_brain(tmp_path, epochs=1)).cost
    spent = first.seconds
    assert 0 < spent == first.seconds  # it stands still when no epoch runs
    resumed = train(make_brain(tmp_path, epochs=2))
    assert resumed.cost.seconds > spent
    fresh = make_brain(tmp_path, epochs=2, choice="best")
    fresh.on_evaluate_start()
    # whichever checkpoint is evaluated, all the training has been paid for
    assert spent < fresh.cost.seconds <= resumed.cost.seconds


def test_peak_memory_is_the_highest_of_all_processes(tmp_path):
    now = peak_memory_mb(torch.device("cpu"))
    state = {"seconds": 3.0, "before_epoch": 1.0, "peak_memory_mb": now + 500}
    torch.save(state, tmp_path / "cost.ckpt")
    cost = TrainingCost("cpu")
    assert now <= cost.peak_memory_mb < now + 400
    cost.load(tmp_path / "cost.ckpt")
    assert cost.peak_memory_mb == now + 500
    assert (cost.seconds, cost.epoch_seconds) == (3.0, 2.0)


def test_the_cost_of_training_adds_up_over_processes_and_is_never_taken_back(tmp_path):
    first = TrainingCost("cpu")
    first._seconds, first._peak = 100.0, 1e9
    first.save(tmp_path / "cost.ckpt")
    second = TrainingCost("cpu")
    second.load(tmp_path / "cost.ckpt")
    second.start()
    second.stop()
    second.stop()
    assert second.seconds > 100 and second.peak_memory_mb == 1e9
    # a checkpoint of an earlier epoch, as evaluation may load
    spent = second.seconds
    second.load(tmp_path / "cost.ckpt")
    assert second.seconds == spent
