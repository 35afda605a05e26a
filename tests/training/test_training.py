"""Checkpoints, random state, schedule, clipping and decay: what every recipe's Brain rests on."""

import logging
import multiprocessing
import os
import random
from functools import partial

import numpy as np
import pytest
import speechbrain as sb
import torch

from modules.ssm import Mamba
from training.brain import RecipeBrain
from training.checkpoints import AtomicCheckpointer, RandomState
from training.cost import TrainingCost, peak_memory_mb
from training.experiment import load_experiment
from training.loggers import TrainLoggers
from training.schedules import WarmupCosine


class Regression(RecipeBrain):
    """The smallest recipe: one Mamba block that learns to double its input."""

    def compute_forward(self, batch, stage):
        return self.modules.model(batch[0])

    def compute_objectives(self, predictions, batch, stage):
        return (predictions - 2 * batch[0]).square().mean()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage == sb.Stage.VALID:
            self.save_epoch({"WER": stage_loss, "epoch": epoch})
            # as time would have it: it must not count among those that are averaged
            self._save_intra_epoch_ckpt()


def make_brain(folder, fidelity="corrected", lr=1e-3, decay=0.0, schedule=None, **options):
    model = Mamba(8)
    counter = sb.utils.epoch_loop.EpochCounter(options.pop("epochs", 1))
    checkpointer = AtomicCheckpointer(folder, recoverables={"model": model, "counter": counter})
    hparams = {
        "fidelity": fidelity,
        "avg_checkpoints": options.pop("avg_checkpoints", 2),
        "checkpoint_choice": options.pop("choice", "last"),
        "model": model,
        "lr_annealing": schedule,
        "epoch_counter": counter,
        "number_of_epochs": counter.limit,
        "output_folder": folder,
    }
    brain_class = options.pop("brain_class", Regression)
    opt_class = partial(torch.optim.AdamW, lr=lr, weight_decay=decay)
    run_opts = {"device": "cpu", "noprogressbar": True, **options}
    return brain_class({"model": model}, opt_class, hparams, run_opts, checkpointer)


def batches(count=3):
    torch.manual_seed(5)
    return torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.randn(count, 6, 8)), batch_size=1
    )


def train(brain):
    brain.fit(brain.hparams.epoch_counter, batches(), batches(1))
    return brain


def test_clipping_bounds_the_gradient_of_all_groups_together(tmp_path):
    brain = make_brain(tmp_path, max_grad_norm=1e-3)
    brain.on_fit_start()
    norms = []

    def measure(optimizer, arguments, options):
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.stack([g.norm() for g in grads]).norm().item())

    # after the Brain's own hook: what the optimiser sees
    brain.optimizer.register_step_pre_hook(measure)
    assert len(brain.optimizer.param_groups) == 2
    for batch in batches():
        brain.step += 1
        brain.fit_batch(batch)
    assert norms == pytest.approx([1e-3] * 3, rel=1e-3)


def test_decay_leaves_the_state_space_alone_and_upstream_does_not(tmp_path):
    for fidelity in ("corrected", "upstream"):
        brain = make_brain(tmp_path / fidelity, fidelity, lr=1e-6, decay=1e5)
        before = {k: v.clone() for k, v in brain.hparams.model.state_dict().items()}
        train(brain)
        after = brain.hparams.model.state_dict()
        shrunk = {k for k in before if after[k].norm() < 0.9 * before[k].norm()}
        assert {"in_proj.weight", "out_proj.weight", "x_proj.weight"} <= shrunk
        spared = {"A_log", "D", "dt_proj.bias", "conv1d.bias"}
        assert spared.isdisjoint(shrunk) == (fidelity == "corrected")


def test_workers_end_with_a_training_that_stops_within_an_epoch(tmp_path):
    brain = make_brain(tmp_path, optimizer_step_limit=1)
    options = {"batch_size": 1, "num_workers": 2}
    brain.fit(
        brain.hparams.epoch_counter,
        batches(6).dataset,
        batches(1).dataset,
        train_loader_kwargs=options,
        valid_loader_kwargs=options,
    )
    assert brain.optimizer_step == 1 and not multiprocessing.active_children()


def test_a_resumed_run_draws_the_random_numbers_of_an_uninterrupted_one(tmp_path):
    state, path = RandomState(), tmp_path / "random_state.ckpt"

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item(), torch.randn(3).tolist()

    draw()
    state.save(path)
    expected = draw()
    draw()
    state.load(path)
    assert draw() == expected


def test_a_checkpoint_without_its_meta_file_or_one_of_its_files_is_never_loaded(tmp_path):
    brain = train(make_brain(tmp_path, epochs=2))
    *_, second, within = sorted(
        brain.checkpointer.list_checkpoints(), key=lambda c: c.meta["unixtime"]
    )
    assert second.meta["epoch"] == 2 and not list(tmp_path.rglob("*.partial"))
    os.remove(within.paramfiles["optimizer"])
    reopened = AtomicCheckpointer(tmp_path)
    assert reopened.find_checkpoint().path == second.path
    # opening a folder changes nothing in it: another process may be saving there
    assert within.path.exists()
    reopened.remove_incomplete()
    assert not within.path.exists() and second.path.exists()


def test_evaluation_averages_the_chosen_checkpoints(tmp_path):
    brain = train(make_brain(tmp_path, epochs=4, lr=0.1, avg_checkpoints=3))
    saved = [
        torch.load(c.paramfiles["model"], weights_only=True)
        for c in brain.checkpointer.list_checkpoints()
        if "WER" in c.meta
    ]
    assert len(saved) == 3
    brain.on_evaluate_start()
    for name, value in brain.hparams.model.state_dict().items():
        mean = torch.stack([s[name] for s in saved]).mean(0)
        assert torch.allclose(value, mean, atol=1e-6), name


def test_testing_without_a_checkpoint_and_resuming_another_model_say_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match="holds no checkpoint of a whole epoch"):
        make_brain(tmp_path / "none").on_evaluate_start()
    train(make_brain(tmp_path / "run"))
    other = make_brain(tmp_path / "run")
    other.checkpointer.recoverables["model"] = Mamba(12)
    with pytest.raises(SystemExit, match="of another model or optimiser"):
        other.on_fit_start()


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


class Killed(Exception):
    """What ends a run in the middle."""


class Counting(Regression):
    """Counts its batches, and stops where a test wants it to."""

    epoch_counts = (*RecipeBrain.epoch_counts, "batches_seen")
    stop_in_stage = stop_after_batches = None

    def on_stage_start(self, stage, epoch=None):
        super().on_stage_start(stage, epoch)
        if stage == self.stop_in_stage:
            raise Killed

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        super().on_fit_batch_end(batch, outputs, loss, should_step)
        if self.batches_seen == self.stop_after_batches:
            raise Killed
        self.batches_seen += 1

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage == sb.Stage.VALID:
            self.save_epoch({"WER": stage_loss, "epoch": epoch})

    def run(self):
        """Fit to six batches, whose loader a checkpoint knows; gives the Brain."""
        self.fit(self.hparams.epoch_counter, batches(6).dataset, batches(1))
        return self


def test_an_epoch_resumed_in_its_middle_counts_all_its_batches_and_seconds(tmp_path):
    first = make_brain(tmp_path, brain_class=Counting, epochs=1).run()
    assert first.batches_seen == 6
    killed = make_brain(tmp_path, brain_class=Counting, epochs=2, ckpt_interval_steps=2)
    killed.stop_after_batches = 5
    with pytest.raises(Killed):
        killed.run()
    resumed = make_brain(tmp_path, brain_class=Counting, epochs=2)
    resumed.on_fit_start()
    # a checkpoint after the fourth batch: what came after it is done again
    assert (resumed.step, resumed.batches_seen) == (4, 4)
    before = resumed.cost.epoch_seconds
    assert before > 0
    resumed = make_brain(tmp_path, brain_class=Counting, epochs=2).run()
    assert resumed.optimizer_step == 12 and resumed.batches_seen == 6
    assert resumed.cost.epoch_seconds > before
    both = first.cost.seconds + resumed.cost.epoch_seconds
    assert resumed.cost.seconds == pytest.approx(both)


def test_a_run_killed_before_its_last_validation_validates_when_started_again(tmp_path):
    options = {"brain_class": Counting, "optimizer_step_limit": 4, "ckpt_interval_steps": 2}
    killed = make_brain(tmp_path, **options, epochs=9)
    killed.stop_in_stage = sb.Stage.VALID
    with pytest.raises(Killed):
        killed.run()
    for _ in range(2):
        resumed = make_brain(tmp_path, **options, epochs=9).run()
        saved = [
            c.meta["epoch"] for c in resumed.checkpointer.list_checkpoints() if "WER" in c.meta
        ]
        assert saved == [1] and resumed.optimizer_step == 4


def test_a_test_tells_of_no_step_that_no_epoch_was_finished_with(tmp_path):
    make_brain(tmp_path, brain_class=Counting, epochs=1).run()
    killed = make_brain(tmp_path, brain_class=Counting, epochs=2, ckpt_interval_steps=2)
    killed.stop_after_batches = 5
    with pytest.raises(Killed):
        killed.run()
    fresh = make_brain(tmp_path, brain_class=Counting)
    fresh.on_evaluate_start()
    assert fresh.optimizer_step == 6


def test_peak_memory_is_the_highest_of_all_processes(tmp_path):
    now = peak_memory_mb(torch.device("cpu"))
    torch.save({"seconds": 3.0, "peak_memory_mb": now + 500}, tmp_path / "cost.ckpt")
    cost = TrainingCost("cpu")
    assert now <= cost.peak_memory_mb < now + 400
    cost.load(tmp_path / "cost.ckpt")
    assert cost.peak_memory_mb == now + 500 and cost.seconds == 3.0


def test_a_step_with_gradients_that_are_not_finite_is_dropped_and_counted(tmp_path):
    brain = make_brain(tmp_path, skip_nonfinite_grads=True)
    brain.on_fit_start()
    before = {k: v.clone() for k, v in brain.hparams.model.state_dict().items()}
    brain.hparams.model.D.register_hook(lambda grad: grad * float("nan"))
    brain.step += 1
    brain.fit_batch(next(iter(batches())))
    assert brain.skipped_steps == 1
    assert all(torch.equal(before[k], v) for k, v in brain.hparams.model.state_dict().items())


def test_a_checkpoint_within_an_epoch_never_parts_accumulated_gradients(tmp_path):
    options = {"grad_accumulation_factor": 2, "ckpt_interval_steps": 1}
    brain = make_brain(tmp_path, **options)
    saved = []
    brain._save_intra_epoch_ckpt = lambda: saved.append(brain.step)
    brain.fit(brain.hparams.epoch_counter, batches(5), None)
    assert saved == [2, 4] and brain.optimizer_step == 2


def test_an_epoch_of_fewer_batches_than_are_accumulated_is_refused(tmp_path):
    brain = make_brain(tmp_path, grad_accumulation_factor=4)
    brain.plan_schedule(batches=4)
    with pytest.raises(SystemExit, match="an epoch has 3 batches, fewer than --grad_accum"):
        brain.plan_schedule(batches=3)


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


def test_tensorboard_gets_the_numbers_and_the_file_everything(tmp_path):
    loggers = TrainLoggers(str(tmp_path / "log.txt"), tensorboard_folder=str(tmp_path / "tb"))
    loggers.log_stats({"epoch": 1, "name": "x"}, {"loss": 2.0}, {"loss": 1.0})
    assert "name: x - train loss: 2.0000 - valid loss: 1.0000" in (tmp_path / "log.txt").read_text()
    assert list((tmp_path / "tb").iterdir())


YAML = """
fidelity: corrected
output_folder: !PLACEHOLDER
d_model: 8
"""


def test_the_log_holds_our_details_and_no_other_librarys(tmp_path, monkeypatch):
    # for which SpeechBrain starts pip and git
    monkeypatch.setattr("speechbrain.utils.logger.get_environment_description", lambda: "")
    yaml = tmp_path / "hparams.yaml"
    yaml.write_text(YAML)
    load_experiment([str(yaml), "--output_folder", str(tmp_path / "run")])
    for name in ("training.brain", "speechbrain.core", "matplotlib.font_manager", "urllib3"):
        logging.getLogger(name).log(logging.INFO, "%s informs", name)
    logging.getLogger("mamba_speech.run").debug("a detail of ours")
    logging.getLogger("matplotlib.font_manager").debug("a detail of theirs")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count(" informs") == 4
    assert "a detail of ours" in log and "a detail of theirs" not in log
