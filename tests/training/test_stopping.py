"""Early stopping: by the best value so far, which checkpoints hold."""

import pytest

from training.checkpoints import AtomicCheckpointer
from training.stopping import EarlyStopping


def test_a_resumed_counter_stops_where_an_uninterrupted_one_does(tmp_path):
    values = [5.0, 4.0, 4.5, 4.0, 4.2, 1.0]
    whole = EarlyStopping(limit=9, stop_after=3)
    for epoch in whole:
        whole.update_metric(values[epoch - 1])
    assert whole.current == 5
    epochs = []
    for _ in range(9):
        counter = EarlyStopping(limit=9, stop_after=3)
        checkpointer = AtomicCheckpointer(tmp_path, recoverables={"counter": counter})
        checkpointer.recover_if_possible()
        for epoch in counter:
            counter.update_metric(values[epoch - 1])
            checkpointer.save_and_keep_only()
            epochs.append(epoch)
            break
    assert epochs == [1, 2, 3, 4, 5] and counter.should_stop


def test_without_a_number_of_epochs_there_is_no_early_stop():
    counter = EarlyStopping(limit=4)
    for _ in counter:
        counter.update_metric(1.0)
    assert counter.current == 4
    for wrong in (0, "never", 1.5):
        with pytest.raises(ValueError, match="stop_after must be 1 epoch or more"):
            EarlyStopping(limit=4, stop_after=wrong)


def test_a_stopped_training_goes_on_if_more_epochs_without_gain_are_allowed(tmp_path):
    def resume(**options):
        counter = EarlyStopping(limit=6, **options)
        checkpointer = AtomicCheckpointer(tmp_path, recoverables={"counter": counter})
        checkpointer.recover_if_possible()
        epochs = []
        for epoch in counter:
            counter.update_metric(1.0)
            checkpointer.save_and_keep_only()
            epochs.append(epoch)
        return epochs

    assert resume(stop_after=2) == [1, 2, 3]
    assert resume(stop_after=2) == []
    assert resume(stop_after=3) == [4]
    assert resume() == [5, 6]
