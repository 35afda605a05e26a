"""Options that recipes share, declared once.

A recipe's ``options.py`` builds its models from these groups. The order of the groups is the order of the YAMLs.
"""

from typing import Annotated, Literal

from pydantic import Field

from training.option_schema import (
    FIXED,
    Count,
    Fraction,
    Natural,
    NonNegative,
    Options,
    Path,
    Positive,
    Seed,
    Size,
    option,
)
from training.run_options import Precision

# percent of the speed of speech
Speeds = Annotated[list[Annotated[int, Field(ge=10, le=1000)]], Field(min_length=1)]
Workers = Annotated[int, Field(ge=0, le=512)]
SampleRate = Annotated[int, Field(ge=1000, le=384000)]
Mask = Annotated[int, Field(ge=0, le=65536)]


class RunOptions(Options):
    """What every run has: seed, folders, logs."""

    seed: Seed = option(
        "Seed of the networks, of the order of the data and of augmentation.", resume=FIXED
    )
    fidelity: Literal["corrected", "upstream"] = option(
        "Corrected behaviour, or the published system with its defects.", resume=FIXED
    )
    output_folder: Path = option("Folder of everything that the run writes.")
    save_folder: Path = option("Folder of the checkpoints.")
    train_log: Path = option("File with the figures of each epoch.")
    data_folder: Path | None = option("Folder of the corpus.")
    skip_prep: bool = option("Whether the manifests of an earlier run are taken as they are.")
    verify: Literal["full", "header"] = option(
        "Reading of the recordings before the training: all of them, or headers and ends."
    )
    max_unreadable: Natural = option("Recordings that may fail to be read before a run stops.")
    skip_train: bool = option("Whether the run is tested without training.")
    num_workers: Workers = option("Processes that load data.")
    use_tensorboard: bool = option("Whether TensorBoard gets the figures.")
    use_wandb: bool = option("Whether Weights & Biases gets the figures.")
    wandb_options: dict = option("Arguments of wandb.init.")


class TrainingOptions(RunOptions):
    """How every recipe trains."""

    number_of_epochs: Count = option("Epochs of training.")
    precision: Precision = option("Floating-point precision of the training.")
    lr: Positive = option("Learning rate, at its highest.")
    weight_decay: NonNegative = option("Weight decay of the optimiser.")
    total_steps: Natural = option("Optimiser steps of the schedule; 0: as many as the epochs take.")
    grad_accumulation_factor: Count = option("Batches in a step of the optimiser.")
    max_grad_norm: float = option(
        "Largest norm of all gradients together; negative: gradients stay as they are."
    )
    ckpt_interval_minutes: NonNegative = option(
        "Minutes between two checkpoints within an epoch; 0: none."
    )
    avg_checkpoints: Count = option("Checkpoints whose weights are averaged for the test.")
    checkpoint_choice: Literal["best", "last"] = option(
        "Checkpoints that are averaged: the best in validation, or the last."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = option("Dropout of the network.")


class MambaOptions(Options):
    """Sizes of a Mamba block."""

    d_model: Size = option("Width of the network.", resume=FIXED)
    d_state: Size = option("States of a channel.", resume=FIXED)
    expand: Size = option("Channels of a block, as a multiple of its width.", resume=FIXED)
    d_conv: Size = option("Taps of the block's convolution.", resume=FIXED)
    bidirectional: bool = option("Whether the network reads in both directions.", resume=FIXED)
    causal: bool = option("Whether the network reads nothing ahead.", resume=FIXED)
    dt_bc_norm: bool = option(
        "Whether dt, B and C are normalised, for runs that diverge in bf16.", resume=FIXED
    )


class AttentionOptions(Options):
    """Sizes of attention and of feed-forward layers."""

    nhead: Size = option("Heads of attention.", resume=FIXED)
    d_ffn: Size = option("Width of the feed-forward layers.", resume=FIXED)


class FixedBatchOptions(Options):
    """Batches of a fixed number of items."""

    batch_size: Count = option("Items in a batch of the training.")
    valid_batch_size: Count = option("Items in a batch of the validation.")
    test_batch_size: Count = option("Items in a batch of the test.")
    drop_last: bool = option("Whether a last batch with fewer items is left out.")


class ScheduleOptions(Options):
    """Warm-up and fall of the learning rate."""

    n_warmup_steps: Natural = option("Steps of the warm-up.")
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = option(
        "Part of all steps that the warm-up takes."
    )
    lr_floor: Fraction = option("End of the cosine, as a part of lr.")
    lr_factor: Annotated[float, Field(gt=0, lt=1)] = option(
        "Factor of the rate after epochs without gain."
    )
    lr_patience: Natural = option("Epochs without gain before the rate falls.")
    lr_min: NonNegative = option("Lowest learning rate.")
    dont_halve_until_epoch: Natural = option("Epoch before which the rate does not fall.")
    # objects of a YAML, which another YAML does without
    lr_annealing: None = option("Schedule of the steps, if the YAML has none.")
    lr_plateau: None = option("Schedule of the epochs, if the YAML has none.")


class FeatureMaskOptions(Options):
    """Masks over the features of keywords and of speakers."""

    freq_mask_max: Mask = option("Widest mask over frequencies, in features.")
    time_mask_max: Mask = option("Longest mask over time, in frames.")
    mask_count: Annotated[int, Field(ge=0, le=1000)] = option("Masks of each kind.")


class FilterbankOptions(Options):
    """Features of the waveform."""

    sample_rate: SampleRate = option("Sample rate, in Hz.", resume=FIXED)
    n_fft: Size = option("Length of the Fourier transform, in samples.", resume=FIXED)
    n_mels: Size = option("Mel bands.", resume=FIXED)
