"""What every recipe's Brain rests on: clipping, decay, resuming, averaging, refusals."""

import multiprocessing

import pytest
import speechbrain as sb
import torch

from modules.ssm import Mamba
from tests.support.training import Counting, Killed, batches, make_brain, train


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
    others = multiprocessing.active_children()
    brain.fit(
        brain.hparams.epoch_counter,
        batches(6).dataset,
        batches(1).dataset,
        train_loader_kwargs=options,
        valid_loader_kwargs=options,
    )
    assert brain.optimizer_step == 1
    assert set(multiprocessing.active_children()) <= set(others)


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
