"""Options of the recognition recipes: type, range and one line of help for each."""

from typing import Annotated, Literal

from pydantic import Field

from mamba_speech.text import CHOICES
from training.common_options import (
    AttentionOptions,
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
    Size,
    Text,
    option,
)

Splits = list[Text] | None
Ratio = Annotated[float, Field(ge=0, le=10)]
# less is no sample at some rates, and thousands of frames a second
Milliseconds = Annotated[float, Field(ge=1, le=1000)]


class SpeechOptions(Options):
    """Corpora in LibriSpeech's layout, or one's own speech by manifests."""

    train_splits: Splits = option("Splits of the corpus to train on.")
    dev_splits: Splits = option("Splits to validate on; the first counts.")
    test_splits: Splits = option("Splits to test on.")
    train_manifest: Path | None = option("List of one's own speech to train on.")
    valid_manifest: Path | None = option("List of one's own speech to validate on.")
    test_manifests: list[Path] | None = option("Lists of one's own speech to test on.")
    max_skipped: Fraction = option(
        "Share of a list's rows that may be left out before a run stops."
    )


class TextOptions(Options):
    """What happens to every text: of training, validation, tests and language models."""

    text_apostrophes: Literal[CHOICES["apostrophes"]] = option(
        "Apostrophes of the texts: all kinds as ' (straight), or as written.", resume=FIXED
    )
    text_case: Literal[CHOICES["case"]] = option("Case of the texts.", resume=FIXED)
    text_digits: Literal[CHOICES["digits"]] = option(
        "Texts with digits: kept, or left out (skip).", resume=FIXED
    )
    text_punctuation: Literal[CHOICES["punctuation"]] = option(
        "Punctuation of the texts, apart from that within words and numbers.", resume=FIXED
    )


class TokenOptions(TextOptions):
    """Tokens of the texts."""

    tokenizer_file: Path = option("File of the tokenizer.")
    token_type: Literal["unigram", "bpe", "char"] = option("Kind of tokens.", resume=FIXED)
    output_neurons: Annotated[int, Field(ge=4, le=1000000)] = option(
        "Tokens, with blank, start and end.", resume=FIXED
    )


class DynamicBatchOptions(Options):
    """Batches of as many items as fit."""

    dynamic_batching: bool = option("Whether a batch holds as many utterances as fit.")
    max_batch_length_train: Positive = option("Length of a training batch.")
    max_batch_length_val: Positive = option("Length of a validation batch.")
    num_bucket: Count = option("Groups of utterances of like length.")
    max_batch_ex: Count = option("Items in a batch, at most.")
    sorting: Literal["random", "ascending", "descending"] = option("Order of the training data.")


class MaskOptions(Options):
    """Masks and speeds of the training speech."""

    speed_changes: Speeds = option("Speeds of the speech, in percent.")
    time_drop_length_low: Natural = option("Length of the shortest time mask, in frames.")
    time_drop_length_high: Count = option("Length of the longest time mask, in frames.")
    time_drop_count_low: Natural = option("Fewest time masks.")
    time_drop_count_high: Natural = option("Most time masks.")
    freq_drop_length_low: Natural = option("Width of the narrowest frequency mask, in bands.")
    freq_drop_length_high: Count = option("Width of the widest frequency mask, in bands.")
    freq_drop_count_low: Natural = option("Fewest frequency masks.")
    freq_drop_count_high: Natural = option("Most frequency masks.")
    time_warp_window: Count = option("Largest shift of the time warp, in frames.")


class StreamingOptions(Options):
    """Chunks of an encoder that streams."""

    chunk_size: Size | None = option(
        "Frames of the encoder in a chunk, outside training; null: the whole utterance."
    )
    chunk_sizes: Annotated[list[Size], Field(min_length=1)] | None = option(
        "Sizes of chunks in training; each batch draws one. null: the whole utterance."
    )
    full_context_share: Fraction = option("Part of the training batches that hear it whole.")
    left_context: Size | None = option(
        "Chunks before its own that a frame of a Conformer hears, outside training; null: all."
    )
    left_contexts: Annotated[list[Size | None], Field(min_length=1)] | None = option(
        "The same in training; each batch with chunks draws one. null: all."
    )

    @classmethod
    def conflicts(cls, values):
        """Chunks of the published system, which has none."""
        yield from super().conflicts(values)
        if values.get("full_context_share") is not None and values.get("fidelity") == "upstream":
            yield "--fidelity must be corrected in a streaming recipe: the published system has no streaming"


class RecognitionOptions(
    TrainingOptions,
    SpeechOptions,
    TokenOptions,
    ScheduleOptions,
    DynamicBatchOptions,
    FixedBatchOptions,
    MaskOptions,
    FilterbankOptions,
    MambaOptions,
    AttentionOptions,
    StreamingOptions,
):
    """Options that both recognisers have."""

    pretrained_model: Path | None = option(
        "Output folder of a recogniser whose weights this one starts from, where they fit."
    )
    max_unknown: Fraction = option(
        "Part of the characters of a set that the tokenizer may lack before a run stops."
    )
    shortest_utterance: NonNegative = option("Shortest training utterance, in seconds.")
    longest_utterance: Positive = option("Longest training utterance, in seconds.")
    loss_reduction: Literal["batchmean", "mean"] = option(
        "Unit of the losses: utterances (batchmean) or tokens (mean)."
    )
    intermediate_layer: Natural = option(
        "Encoder layer that the CTC head also reads in training; 0: none.", resume=FIXED
    )
    intermediate_weight: Fraction = option("Weight of the intermediate layer's loss.")
    augment_warmup: Natural = option("Steps of the optimiser before masks begin.")
    win_length: Milliseconds = option("Window of the features, in milliseconds.", resume=FIXED)
    hop_length: Milliseconds = option("Shift of the features, in milliseconds.", resume=FIXED)
    num_encoder_layers: Layers = option("Layers of the encoder.", resume=FIXED)
    kernel_size: Size = option("Taps of the convolution modules.", resume=FIXED)
    attention_type: Literal["RelPosMHAXL", "RoPEMHA", "regularMHA"] = option(
        "Attention of a Conformer.", resume=FIXED
    )
    cnn_channels: Annotated[int, Field(ge=2, le=65536)] = option(
        "Channels of the first convolution.", resume=FIXED
    )
    cnn_dropout: Annotated[float, Field(ge=0, lt=1)] = option("Dropout of the convolutions.")
    mamba_config: dict = option("Sizes of the Mamba blocks.", resume=FIXED)

    @classmethod
    def conflicts(cls, values):
        """Bounds in the wrong order."""
        yield from super().conflicts(values)
        shortest, longest = values.get("shortest_utterance"), values.get("longest_utterance")
        if None not in (shortest, longest) and shortest > longest:
            yield f"--shortest_utterance {shortest} must not be over --longest_utterance {longest}"
        window, rate, size = (values.get(name) for name in ("win_length", "sample_rate", "n_fft"))
        samples = round(window * rate / 1000) if None not in (window, rate, size) else 0
        if samples > (size or 0):
            yield f"--win_length {window:g} is {samples} samples at {rate} Hz, more than --n_fft {size}"


class CTCOptions(RecognitionOptions):
    """Options of train_CTC.py."""

    test_decoding: Literal["beam", "greedy"] = option("Search of the test sets.")
    beam_size: Size = option("Hypotheses that the search keeps.")
    beam_prune_logp: float = option("Log-probability below the best at which hypotheses end.")
    token_prune_min_logp: float = option("Lowest log-probability of a token.")
    prune_history: bool = option("Whether hypotheses with the same last words are joined.")
    ngram_lm: Path | None = option("KenLM file, .arpa or .bin.")
    ngram_weight: NonNegative = option("Weight of the n-gram language model.")
    word_bonus: float = option("Bonus of a word.")


class S2SOptions(RecognitionOptions):
    """Options of train_S2S.py."""

    pretrained_lm_tokenizer_path: Path | None = option(
        "Folder or Hub name of a language model and its tokenizer."
    )
    no_lm: bool = option("Whether only the tokenizer of the language model is used.")
    ctc_weight: Fraction = option("Weight of CTC's loss; the decoder's has the rest.")
    label_smoothing: Fraction = option("Label smoothing of the decoder's loss.")
    consistency_weight: NonNegative = option("Weight of the agreement of two masked views.")
    gradient_checkpointing: bool = option("Whether activations are computed twice to save memory.")
    encoder_module: Literal["conmamba", "conformer"] = option(
        "Network of the encoder.", resume=FIXED
    )
    decoder_module: Literal["transformer", "mamba"] = option(
        "Network of the decoder.", resume=FIXED
    )
    num_decoder_layers: Layers = option("Layers of the decoder.", resume=FIXED)
    max_length: Annotated[int, Field(ge=1, le=1000000)] = option(
        "Tokens of the longest utterance.", resume=FIXED
    )
    valid_search_interval: Count = option("Epochs between error rates in validation.")
    valid_beam_size: Size = option("Hypotheses that the search in validation keeps.")
    test_beam_size: Size = option("Hypotheses that the search of the test sets keeps.")
    ctc_weight_decode: Fraction = option("Weight of CTC in the search.")
    ctc_scoring: Literal["exact", "pruned", "full"] = option("Candidates that CTC scores.")
    scorer_beam_scale: Positive = option("Candidates of a hypothesis, times the beam, if pruned.")
    min_decode_ratio: Ratio = option("Fewest tokens, as a part of the encoder's frames.")
    max_decode_ratio: Ratio = option("Most tokens, as a part of the encoder's frames.")
    temperature: Positive = option("Temperature of the decoder.")
    length_normalization: bool = option("Whether scores are divided by lengths.")
    using_eos_threshold: bool = option("Whether an unlikely end of the sentence is ruled out.")
    eos_threshold: NonNegative = option("Factor by which the end must be the likeliest token.")
    lm_weight: NonNegative = option("Weight of the language model.")
    temperature_lm: Positive = option("Temperature of the language model.")
    lm_d_model: Size = option("Width of a language model that comes as lm.ckpt.")
    lm_nhead: Size = option("Heads of a language model that comes as lm.ckpt.")
    lm_num_layers: Layers = option("Layers of a language model that comes as lm.ckpt.")
    lm_d_ffn: Size = option("Feed-forward width of a language model that comes as lm.ckpt.")

    @classmethod
    def conflicts(cls, values):
        """Ratios in the wrong order."""
        yield from super().conflicts(values)
        low, high = values.get("min_decode_ratio"), values.get("max_decode_ratio")
        if None not in (low, high) and low > high:
            yield f"--min_decode_ratio must not be over --max_decode_ratio; got {low} and {high}"


class LMOptions(TrainingOptions, SpeechOptions, TokenOptions, ScheduleOptions, MambaOptions):
    """Options of train_LM.py."""

    text_files: list[Path] | None = option("Texts to train on, one sentence a line.")
    valid_text: Path | None = option("Text to validate on.")
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = option(
        "Part of the sentences that validates, without a text for it."
    )
    test_texts: list[Path] | None = option("Texts to test on.")
    longest_sentence: Annotated[int, Field(ge=2)] = option("Tokens of the longest sentence.")
    pretrained_tokenizer_file: Path | None = option("File of a tokenizer to take over.")
    tokenizer_lines: Count = option("Lines that the tokenizer is learnt from, at most.")
    max_batch_length_train: Count = option("Tokens in a training batch.")
    max_batch_length_val: Count = option("Tokens in a validation batch.")
    max_batch_ex: Count = option("Sentences in a batch, at most.")
    num_layers: Layers = option("Layers of the network.", resume=FIXED)
    fidelity: Literal["corrected"] = option(
        "Corrected behaviour; no such language model was published.", resume=FIXED
    )
    tie_weights: bool = option("Whether input and output embeddings are one.", resume=FIXED)


OPTIONS = {"train_CTC.py": CTCOptions, "train_S2S.py": S2SOptions, "train_LM.py": LMOptions}
