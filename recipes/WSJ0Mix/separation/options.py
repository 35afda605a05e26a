"""Options of the separation recipe: type, range and one line of help for each."""

from typing import Annotated, Literal

from pydantic import Field

from training.common_options import (
    AttentionOptions,
    FixedBatchOptions,
    MambaOptions,
    SampleRate,
    ScheduleOptions,
    Speeds,
    TrainingOptions,
)
from training.option_schema import (
    FIXED,
    Count,
    Fraction,
    Layers,
    Natural,
    Options,
    Path,
    Positive,
    Size,
    option,
)

# shortest mixture whose loudness is measured, in seconds; see dynamic_mixing.py
LOUDNESS_SECONDS = 0.4
# each is one filter or one pass over a mixture
Drops = Annotated[int, Field(ge=0, le=1000)]


class MixtureOptions(Options):
    """Mixtures of a tree, and mixtures that are made while training."""

    num_spks: Literal[2, 3] = option("Speakers of a mixture.", resume=FIXED)
    sample_rate: SampleRate = option("Sample rate, in Hz.", resume=FIXED)
    mode: Literal["min", "max"] = option(
        "Length of a mixture: its shortest source (min) or its longest (max)."
    )
    check_sum: bool = option("Whether every mixture must be the sum of its sources.")
    dynamic_mixing: bool = option("Whether training mixtures are made of single speakers.")
    base_folder_dm: Path | None = option("Folder with a folder of recordings for every speaker.")
    # the order of an epoch is held in memory
    epoch_mixtures: Annotated[int, Field(ge=0, le=10000000)] = option(
        "Made mixtures of an epoch; 0: as many as data_folder has to train on."
    )
    loudness: Literal["rms", "lufs"] = option("Levels as in WSJ0-2mix (rms) or LibriMix (lufs).")


class AugmentationOptions(Options):
    """Changes of the training mixtures."""

    limit_training_signal_len: bool = option("Whether longer mixtures are cut.")
    training_signal_len: Count = option("Length of the longest training mixture, in samples.")
    use_speedperturb: bool = option("Whether the speed of each source is changed.")
    speed_changes: Speeds = option("Speeds of the sources, in percent.")
    use_rand_shift: bool = option("Whether each source is rotated in time.")
    min_shift: int = option("Lowest shift, in samples.")
    max_shift: int = option("Highest shift, in samples.")
    use_wavedrop: bool = option("Whether parts and bands of the mixture are silenced.")
    drop_freq_low: Fraction = option("Lowest centre of a band, as a part of half the sample rate.")
    drop_freq_high: Annotated[float, Field(ge=0.001, le=1)] = option(
        "Highest centre of a band, as a part of half the sample rate."
    )
    drop_freq_count_low: Drops = option("Fewest bands.")
    drop_freq_count_high: Drops = option("Most bands.")
    drop_freq_width: Annotated[float, Field(gt=0, le=1)] = option(
        "Width of a band, as a part of half the sample rate."
    )
    drop_chunk_count_low: Drops = option("Fewest parts.")
    drop_chunk_count_high: Drops = option("Most parts.")
    drop_chunk_length_low: Natural = option("Length of the shortest part, in samples.")
    drop_chunk_length_high: Natural = option("Length of the longest part, in samples.")


class NetworkOptions(MambaOptions, AttentionOptions):
    """Sizes of the three networks."""

    N_encoder_out: Size = option("Channels of the encoder.", resume=FIXED)
    out_channels: Size = option("Channels of the mask network.", resume=FIXED)
    kernel_size: Size = option("Window of the encoder, in samples.", resume=FIXED)
    kernel_stride: Size = option("Shift of the encoder, in samples.", resume=FIXED)
    encoder_init: Literal["random", "fourier"] = option(
        "Filters that the encoder begins with.", resume=FIXED
    )
    num_layers: Layers = option("Layers of the network.", resume=FIXED)
    n_dp: Layers = option("Dual-path blocks.", resume=FIXED)
    chunk_size: Annotated[int, Field(ge=2, le=65536)] = option(
        "Length of a chunk, in frames.", resume=FIXED
    )
    skip_around_intra: bool = option(
        "Whether the input is added again to what is read along chunks.", resume=FIXED
    )
    n_mamba_dp: Annotated[int, Field(ge=2, le=1000)] = option(
        "Mamba blocks of a dual-path block, half along chunks and half across.", resume=FIXED
    )
    skip_n_block: Natural = option(
        "Dual-path blocks after which the input is added again; 0: never.", resume=FIXED
    )
    intra_layers: Layers = option("Layers of the transformer along chunks.", resume=FIXED)
    inter_layers: Layers = option("Layers of the transformer across chunks.", resume=FIXED)
    fused_add_norm: bool = option(
        "Switch of published command lines; the maths is the same either way."
    )
    rms_norm: bool = option("Whether norms are RMSNorm; if not, LayerNorm.", resume=FIXED)
    residual_in_fp32: bool = option("Whether residuals are kept in float32.", resume=FIXED)


class SeparationOptions(
    TrainingOptions,
    MixtureOptions,
    ScheduleOptions,
    FixedBatchOptions,
    AugmentationOptions,
    NetworkOptions,
):
    """Options of train.py."""

    use_cosine_schedule: bool = option("Whether the rate falls step by step along a cosine.")
    loss_upper_lim: float = option("Loss beyond which a batch is not learnt from.")
    threshold_byloss: bool = option("Whether well separated mixtures are not learnt from.")
    threshold: float = option("Loss, in dB, up to which a mixture is well separated.")
    clip_wav_max: Positive = option("Largest absolute value of an estimate in training.")
    pretrained_separator: Path | None = option("Folder of weights to begin with.")
    metrics: list[Literal["si-snr", "sdr", "stoi", "pesq"]] = option("Metrics of the test.")
    save_audio: bool = option("Whether the first mixtures of the test are saved as audio.")
    n_audio_to_save: Natural = option("Mixtures of the test that are saved.")

    @classmethod
    def conflicts(cls, values):
        """Bounds in the wrong order, and mixtures that are too short."""
        yield from super().conflicts(values)
        low, high = values.get("min_shift"), values.get("max_shift")
        if values.get("use_rand_shift") and low >= high:
            yield f"--min_shift {low} must be less than --max_shift {high}"
        yield from cls._short_mixtures(values)

    @classmethod
    def _short_mixtures(cls, values):
        length, window = values.get("training_signal_len"), values.get("kernel_size")
        mixing = values.get("dynamic_mixing")
        if None in (length, window):
            return
        if (mixing or values.get("limit_training_signal_len")) and length < window:
            yield (
                f"--training_signal_len {length} must hold a window of the encoder, of {window} samples (kernel_size)"
            )
        least = round(LOUDNESS_SECONDS * (values.get("sample_rate") or 0))
        if mixing and values.get("loudness") == "lufs" and length < least:
            yield (
                f"--training_signal_len {length} is too short for --loudness lufs, which measures {LOUDNESS_SECONDS} s "
                f"and more: set it to {least} or more"
            )


OPTIONS = {"train.py": SeparationOptions, "train_wsj0mix.py": SeparationOptions}
