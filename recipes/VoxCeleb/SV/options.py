"""Options of the speaker recipe: type, range and one line of help for each."""

import math
from typing import Annotated, ClassVar, Literal

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
    Count,
    Fraction,
    Layers,
    Natural,
    NonNegative,
    Options,
    Path,
    Positive,
    Seed,
    Size,
    Words,
    option,
)

Folders = list[Path] | Path | None
# of a crop; the shortest holds one window of the features
Seconds = Annotated[float, Field(ge=0.025, le=600)]
Radians = Annotated[float, Field(ge=0, lt=math.pi / 2)]
Decibels = Annotated[float, Field(ge=-100, le=100)]
Tempo = Annotated[float, Field(ge=0.1, le=10)]
Speakers = (
    Annotated[int, Field(ge=2), Words("a number of speakers, 2 or more,")]
    | Annotated[float, Field(gt=0, lt=1), Words("a part of them between 0 and 1")]
)
# the order of an epoch is held in memory
Crops = Annotated[int, Field(ge=1, le=100000)]
RESEMBLYZER = "resemblyzer"


class VoiceOptions(Options):
    """Training voices, validation and trial lists."""

    threshold_file: Path = option("File with the score above which two recordings are one speaker.")
    other_folders: Folders = option("Folders of more training voices.")
    trials: Literal["found", "none"] | list[Path] | Path | None = option(
        "Lists to test on; found: the one of the corpus."
    )
    trial_folders: Folders = option("Folders of the lists' recordings.")
    skip_test: bool = option("Whether no list is scored.")
    split: Literal["speaker", "utterance"] = option(
        "Unit of the split: new speakers validate, or new utterances of known ones.", resume=FIXED
    )
    valid_speakers: Speakers = option("Speakers who validate, in a split by speaker.")
    n_speakers: Annotated[int, Field(ge=2)] | None = option(
        "Speakers of a split by utterance; null: all."
    )
    n_utterances: Annotated[int, Field(ge=4)] | None = option(
        "Utterances of a split by utterance; null: all."
    )
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = option(
        "Part of the utterances that validates, in a split by utterance."
    )
    n_valid_trials: Annotated[int, Field(ge=2)] = option("Validation trials, at most.")
    data_seed: Seed = option("Seed of the draw of validation.", resume=FIXED)


class ClassOptions(Options):
    """The classes of the training speakers, and when the training ends."""

    stop_after: Count | None = option("Epochs without gain that end the training; null: any.")
    margin: Radians = option("Margin between a speaker's embeddings and the others, in radians.")
    scale: Positive = option("Factor of the cosines.")
    sub_centres: Annotated[int, Field(ge=1, le=1000)] = option(
        "Centres of a speaker; the nearest one counts.", resume=FIXED
    )
    hard_impostors: Natural = option("Nearest other speakers that weigh more.")
    hard_weight: Annotated[float, Field(ge=1)] = option("Weight of these speakers.")


class CropOptions(Options):
    """Crops of the recordings, and their changes."""

    crop_seconds: Seconds = option("Length of the shortest training crop, in seconds.")
    crop_seconds_max: Seconds = option("Length of the longest training crop, in seconds.")
    crops_per_recording: Crops = option("Crops of a recording in an epoch.")
    crops_per_speaker: Crops | None = option(
        "Crops of a speaker in an epoch, in place of crops by recording."
    )
    speeds: Speeds = option(
        "Speeds of the crops, in percent, 100 the first; each is another voice.", resume=FIXED
    )
    augment_probability: Fraction = option("Part of the crops that is changed.")
    noise_folder: Path | None = option("Folder of noise recordings.")
    noise_snr: Annotated[list[Decibels], Field(min_length=2, max_length=2)] = option(
        "Lowest and highest ratio of crop to noise, in dB."
    )
    rir_folder: Path | None = option("Folder of room impulse responses.")
    time_stretch: Annotated[list[Tempo], Field(min_length=2, max_length=2)] | None = option(
        "Slowest and fastest tempo at the same pitch; null: none."
    )


class EncoderOptions(FilterbankOptions, MambaOptions, AttentionOptions):
    """Features and networks."""

    remove_mean: Literal["band", "level"] = option(
        "Mean that is taken from the features: of each band, or of all.", resume=FIXED
    )
    normalise_variance: bool = option("Whether each band is divided by its spread.", resume=FIXED)
    embedding_size: Size = option("Channels of an embedding.", resume=FIXED)
    d_model: Size | None = option(
        "Width of the network; null: as the teacher of hidden states.", resume=FIXED
    )
    num_layers: Layers | None = option(
        "Layers of the network; null: as many as the teacher has.", resume=FIXED
    )
    subsampling: Size = option("Frames that are joined into one.", resume=FIXED)
    cepstral_statistics: Annotated[int, Field(ge=0, le=65536)] = option(
        "Cepstra whose statistics join the embedding; 0: none.", resume=FIXED
    )
    n_frames: Size = option("Frames of a crop, after subsampling.", resume=FIXED)
    groups: Size = option("Groups of channels, each with its own MLP.", resume=FIXED)
    expansion: Annotated[float, Field(gt=0, le=1000)] = option(
        "Width within these MLPs, as a factor.", resume=FIXED
    )


class SpeakerOptions(
    TrainingOptions,
    VoiceOptions,
    ClassOptions,
    ScheduleOptions,
    FixedBatchOptions,
    CropOptions,
    FeatureMaskOptions,
    EncoderOptions,
):
    """Options that both scripts have."""

    # the script, and the option by which a YAML is known to be its own
    script: ClassVar[str]
    own_option: ClassVar[str]

    pretrained_folder: Path = option("Folder of downloaded networks.")

    @classmethod
    def conflicts(cls, values):
        """The YAML of another script; bounds in the wrong order; sizes that nothing gives."""
        if cls.own_option not in values:
            other = next((one.script for one in OPTIONS.values() if one.own_option in values), None)
            remedy = f": give it to {other}" if other else ""
            yield f"the YAML has no option {cls.own_option}, which {cls.script} needs{remedy}"
            return
        yield from super().conflicts(values)
        for stage in ("", "fine_tune_"):
            name = f"{stage}crop_seconds"
            low, high = values.get(name), values.get(f"{name}_max")
            if None not in (low, high) and low > high:
                yield f"--{name} {low} must not be over --{name}_max {high}"
        for name, words in (("noise_snr", "ratio"), ("time_stretch", "tempo")):
            low, high = values.get(name) or (0, 0)
            if low > high:
                yield f"--{name} must be the lowest and the highest {words}; got [{low}, {high}]"
        speeds = values.get("speeds")
        if speeds and speeds[0] != 100:
            yield f"--speeds must begin with 100, the speakers' own speed; got {speeds}"
        if "student" not in values:
            for name in ("d_model", "num_layers"):
                if name in values and values[name] is None:
                    yield f"--{name} must be a whole number: only a student takes its teacher's"


class EncoderTrainingOptions(SpeakerOptions):
    """Options of train.py."""

    script = "train.py"
    own_option = "fine_tune"

    fine_tune: Path | None = option("Folder of a trained run that a second stage starts from.")
    fine_tune_epochs: Count = option("Epochs of the second stage.")
    fine_tune_lr: Positive = option("Learning rate of the second stage, at its highest.")
    fine_tune_margin: Radians = option("Margin of the second stage, in radians.")
    fine_tune_crop_seconds: Seconds = option("Shortest crop of the second stage, in seconds.")
    fine_tune_crop_seconds_max: Seconds = option("Longest crop of the second stage, in seconds.")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = option("Label smoothing of the loss.")
    lr_front_end: Positive = option("Learning rate of the pretrained network's highest layer.")
    lr_decay: Annotated[float, Field(gt=0, le=1)] = option(
        "Factor of the rate from layer to layer."
    )
    ssl_source: Path = option("Folder or Hub name of a pretrained network.", resume=FIXED)
    ssl_config: dict | None = option("Configuration of the pretrained network.")
    ssl_layer: Literal["last", "weighted_sum"] | Natural = option(
        "Layer of the pretrained network that is read: its number, or one of these.", resume=FIXED
    )
    trainable_layers: Literal["all"] | Natural = option(
        "Layers of the pretrained network that learn, from the highest down.", resume=FIXED
    )
    gradient_checkpointing: bool = option("Whether activations are computed twice to save memory.")


class DistillationOptions(SpeakerOptions):
    """Options of distill.py."""

    script = "distill.py"
    own_option = "teacher"

    teacher: Path = option("Folder or Hub name of the teacher, or resemblyzer.", resume=FIXED)
    teacher_config: dict | None = option("Configuration of the teacher.")
    teacher_hears: Literal["recordings", "crops"] = option(
        "Sound that the teacher hears: recordings whole, or the student's crops."
    )
    distillation_weight: NonNegative = option("Weight of the distance from the teacher.")
    cosine_weight: NonNegative = option("Weight of each embedding's distance, within it.")
    similarity_weight: NonNegative = option("Weight of the similarities' distance, within it.")
    distillation_head: bool = option(
        "Whether a linear layer leads from the student's embeddings to the teacher's.", resume=FIXED
    )
    student: Literal[
        "sv_mixer", "mlp_mixer", "cycle_mlp", "conv_mixer", "transformer", "bimamba"
    ] = option("Kind of the student's layers.", resume=FIXED)
    back_end: Literal["linear", "ecapa", "redimnet"] = option(
        "Network behind the student's layers.", resume=FIXED
    )
    prediction_heads: Layers = option("Layers of the teacher that are predicted.", resume=FIXED)

    @classmethod
    def conflicts(cls, values):
        """Teachers of another kind than the YAML's."""
        yield from super().conflicts(values)
        teacher = values.get("teacher")
        if teacher and (teacher == RESEMBLYZER) == ("teacher_config" in values):
            kind = "a network with hidden states" if "teacher_config" in values else RESEMBLYZER
            yield f"--teacher must be {kind} with this YAML; got {teacher}"


OPTIONS = {"train.py": EncoderTrainingOptions, "distill.py": DistillationOptions}
