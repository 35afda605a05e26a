"""Options of the keyword recipe: type, range and one line of help for each."""

from typing import Annotated, Literal

from pydantic import Field

from training.common_options import (
    AttentionOptions,
    FeatureMaskOptions,
    FilterbankOptions,
    FixedBatchOptions,
    MambaOptions,
    ScheduleOptions,
    Speeds,
    TrainingOptions,
)
from training.option_schema import (
    FIXED,
    Fraction,
    Layers,
    Options,
    Path,
    Percentage,
    Seed,
    Size,
    Text,
    option,
)

Name = Annotated[str, Field(min_length=1, max_length=255)]
Decibels = Annotated[float, Field(ge=-100, le=100)]
# of a clip; it is held in memory whole
Seconds = Annotated[float, Field(ge=0.01, le=600)]


class ClipOptions(Options):
    """Corpora of clips."""

    labels_file: Path = option("File with the classes of the model.")
    version: Literal["0.01", "0.02", "v0.01", "v0.02"] = option(
        "Version of Speech Commands.", resume=FIXED
    )
    n_classes: Size | None = option(
        "Classes, which are outputs of the model; empty: as many as the data have.", resume=FIXED
    )
    words: Literal["all"] | list[Text] | Text | None = option(
        "Words to spot; all: every word folder; empty: as many as n_classes says.", resume=FIXED
    )
    split: Path = option(
        "Split by hashes (official), by the corpus' lists (lists), by a folder, or by drawn voices (auto)."
    )
    unknown_percentage: Percentage = option("Clips of other words, in percent of the words' clips.")
    silence_percentage: Percentage = option("Clips of silence, in percent of the words' clips.")
    other_speech: Path | None = option(
        "Folder of recordings without the words; spoken: by eSpeak NG; auto: that where the corpus has none."
    )
    other_speech_percentage: Annotated[float, Field(ge=0, le=1000)] = option(
        "Pieces of other speech, in percent of the words' clips."
    )
    background: Path | None = option(
        "Folder of noise beside the corpus' own; computed: noises that the preparation computes."
    )
    spoken_voices: Annotated[int, Field(ge=0, le=275)] = option(
        "Voices of eSpeak NG that say each word in training, beside the recordings; 0: none."
    )
    balance: Annotated[int, Field(ge=1, le=1000)] = option(
        "Times that a clip of a rare word is heard in an epoch, at most; 1: as often as any."
    )
    test_speaker: Name | None = option("Speaker of Free Spoken Digits who is left for the test.")
    valid_speaker: Name | None = option("Speaker of Free Spoken Digits who validates.")
    data_seed: Seed = option("Seed of the draw of unknown clips and silence.", resume=FIXED)
    clip_seconds: Seconds = option("Length of the longest clip, in seconds.", resume=FIXED)
    pad_clips: bool = option("Whether shorter clips are brought to that length.", resume=FIXED)


class NegativeOptions(Options):
    """What a spotter must stay silent at."""

    hard_negatives: Fraction = option(
        "Part of the other speech, computed noise and contexts at which the spotter rang; 0: none.",
        resume=FIXED,
    )
    hard_negative_minutes: Annotated[float, Field(gt=0, le=100000)] = option(
        "Minutes of other speech that are listened to for them after an epoch."
    )


class WaveformOptions(Options):
    """Changes of the training clips."""

    shift_ms: Annotated[float, Field(ge=0, le=60000)] = option(
        "Largest shift to either side, in milliseconds."
    )
    speed_changes: Speeds = option("Speeds of the clips, in percent.")
    white_noise_max: Annotated[float, Field(ge=0, le=10)] = option(
        "Largest standard deviation of white noise; full scale is 1."
    )
    background_probability: Fraction = option("Part of the clips that get background noise.")
    background_snr: Annotated[list[Decibels], Field(min_length=2, max_length=2)] = option(
        "Lowest and highest ratio of clip to background noise, in dB."
    )
    background_generated: Fraction = option(
        "Part of the background noises that is generated anew, not taken from recordings."
    )
    reverberation_probability: Fraction = option("Part of the clips that are heard in a room.")
    gain_db: Annotated[list[Decibels], Field(min_length=2, max_length=2)] = option(
        "Lowest and highest change of the level of clip and noise together, in dB."
    )
    computed_silence: Fraction = option(
        "Part of the silence clips that are computed: digital silence, tones, knocks, noise of any level."
    )
    silence_db: Annotated[list[Decibels], Field(min_length=2, max_length=2)] = option(
        "Lowest and highest change of the level of the other silence clips, in dB."
    )
    context_seconds: Annotated[float, Field(ge=0, le=600)] = option(
        "Seconds of other speech or noise before a clip, for causal models; 0: none."
    )
    context_silence: Fraction = option("Part of the batches that nothing precedes.")
    context_from_epoch: Annotated[int, Field(ge=1, le=10**9)] = option(
        "First epoch in which anything precedes clips, and after which hard negatives are looked for."
    )
    context_pause: Annotated[float, Field(ge=0, le=600)] = option(
        "Longest silence between other speech and a clip, in seconds; a half of the contexts have one."
    )
    context_loss: Annotated[float, Field(ge=0, le=100)] = option(
        "Weight of the loss of keywords heard in the context; 0: none."
    )
    context_hardest: Annotated[float, Field(gt=0, le=1)] = option(
        "Part of the moments of the context, the hardest, that count for that loss."
    )


class KeywordMaskOptions(FeatureMaskOptions):
    """Changes of the features."""

    frequency_warp: Annotated[float, Field(ge=0, le=0.5)] = option(
        "Largest part by which the frequency axis is stretched or pressed together; 0: none."
    )


class KeywordOptions(
    TrainingOptions,
    ClipOptions,
    ScheduleOptions,
    FixedBatchOptions,
    WaveformOptions,
    NegativeOptions,
    KeywordMaskOptions,
    FilterbankOptions,
    MambaOptions,
    AttentionOptions,
):
    """Options of train.py."""

    label_smoothing: Fraction = option("Label smoothing of the loss.")
    kind: Literal["mel", "mfcc"] = option("Kind of the features.", resume=FIXED)
    n_mfcc: Size = option("Cepstral coefficients of MFCC.", resume=FIXED)
    hop_length: Size = option("Shift of the features, in samples.", resume=FIXED)
    mean_norm: bool = option(
        "Whether the mean of each feature over its clip is taken off.", resume=FIXED
    )
    num_layers: Layers = option("Layers of the network.", resume=FIXED)
    hidden_size: Size = option("Units of a GRU layer.", resume=FIXED)
    n_frames: Annotated[int, Field(ge=8, le=8192)] = option(
        "Frames of a clip, which the network wants.", resume=FIXED
    )
    alpha: Annotated[float, Field(gt=0, le=10)] = option(
        "Width of MobileNetV2, as a part of its full width.", resume=FIXED
    )

    @classmethod
    def conflicts(cls, values):
        """Bounds in the wrong order, and options that are of no use with others."""
        yield from super().conflicts(values)
        low, high = values.get("background_snr") or (0, 0)
        if low > high:
            yield f"--background_snr must be the lowest and the highest ratio; got [{low}, {high}]"
        low, high = values.get("gain_db") or (0, 0)
        if low > high:
            yield f"--gain_db must be the lowest and the highest change; got [{low}, {high}]"
        quiet, loud = values.get("silence_db") or (0, 0)
        if quiet > loud:
            yield f"--silence_db must be the lowest and the highest change; got [{quiet}, {loud}]"
        shift, seconds = values.get("shift_ms"), values.get("clip_seconds")
        if None not in (shift, seconds) and shift >= 1000 * seconds:
            yield f"--shift_ms {shift} must be less than a clip of --clip_seconds {seconds}"
        if values.get("context_seconds") and not values.get("causal"):
            yield (
                "--context_seconds is for models that carry their state along a stream: set --causal True, which Mamba "
                "has, or --context_seconds 0"
            )
        if values.get("context_loss") and not values.get("context_seconds"):
            yield "--context_loss needs a context: set --context_seconds above 0, or --context_loss 0"
        if values.get("hard_negatives") and not values.get("other_speech_percentage"):
            yield (
                "--hard_negatives come from other speech: set --other_speech_percentage above 0, or --hard_negatives 0"
            )
        if values.get("mean_norm") and values.get("causal"):
            yield "--mean_norm reads the whole clip, and --causal True must not: set one of them to False"
        if values.get("test_speaker") and values.get("other_speech_percentage"):
            yield (
                "--other_speech_percentage is of no use with --test_speaker: Free Spoken Digits have no unknown class; "
                "set it to 0"
            )


OPTIONS = {"train.py": KeywordOptions, "rate.py": KeywordOptions}
