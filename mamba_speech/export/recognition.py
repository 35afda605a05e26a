"""A trained recogniser for SpeechBrain's ``EncoderASR``, ``EncoderDecoderASR`` or ``StreamingASR``."""

from pathlib import Path

import yaml

from mamba_speech.asr.decoders import BEAM_OPTIONS, S2S_OPTIONS, CTCDecoder
from mamba_speech.asr.language_model import (
    PUBLISHED_SIZES,
    language_model_of_run,
    source_of_language_model,
)
from mamba_speech.asr.published import is_published
from mamba_speech.asr.run_decoder import DECODING_OPTIONS, decoder_of_run
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.export.content import Content, dump, nodes_of, write_nodes
from mamba_speech.files import copy_file
from mamba_speech.run import load_run
from modules.asr.lm import MambaLM
from modules.asr.s2s import S2SRecognizer
from modules.asr.streaming_network import StreamingNetwork

_TOKENIZER = "tokenizer.model"
_NETWORKS = ("compute_features", "normalize", "model")
_LM, _NGRAM = "pretrained_lm_tokenizer_path", "ngram_lm"
_PARTS = "mamba_speech.asr.speechbrain_parts"
_STREAMING_PARTS = "mamba_speech.asr.speechbrain_streaming"
# what each of SpeechBrain's classes asks of a YAML
_EVERY = f"""\
tokenizer: !new:{_PARTS}.LoadedTokenizer
audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer
    sample_rate: !ref <sample_rate>
"""
_ENCODER = f"""\
encoder: !new:{_PARTS}.Encoder
    compute_features: !ref <compute_features>
    normalize: !ref <normalize>
    model: !ref <model>
"""
_CTC = f"""\
{_ENCODER}modules:
    encoder: !ref <encoder>
"""
_GREEDY = f"""\
decoding_function: !name:{_PARTS}.greedy_tokens
    vocabulary: {{vocabulary}}
"""
_BEAM = f"""\
decoding_function: !name:{_PARTS}.BeamSearcher
test_beam_search:
{{options}}
"""
_S2S = f"""\
{_ENCODER}decoder: !new:{_PARTS}.JointDecoder
    model: !ref <model>
    tokenizer: !ref <tokenizer>
{{options}}
modules:
    encoder: !ref <encoder>
    decoder: !ref <decoder>
"""
_TRANSFORMER_LM = """\
lm: !new:speechbrain.lobes.models.transformer.TransformerLM.TransformerLM
    vocab: {vocab}
    d_model: {lm_d_model}
    nhead: {lm_nhead}
    num_encoder_layers: {lm_num_layers}
    num_decoder_layers: 0
    d_ffn: {lm_d_ffn}
    activation: !name:torch.nn.GELU
    normalize_before: False
"""
_STREAMING = f"""\
enc: !new:{_STREAMING_PARTS}.Encoder
    compute_features: !ref <compute_features>
    normalize: !ref <normalize>
    model: !ref <model>
proj_enc: !new:torch.nn.Identity
modules:
    enc: !ref <enc>
    proj_enc: !ref <proj_enc>
fea_streaming_extractor: !new:{_STREAMING_PARTS}.Samples
    frame_samples: {{frame_samples}}
decoding_function: !new:{_STREAMING_PARTS}.GreedyDecoder
    model: !ref <model>
    tokenizer: !ref <tokenizer>
make_decoder_streaming_context: !name:{_STREAMING_PARTS}.DecoderContext
make_tokenizer_streaming_context: !name:speechbrain.tokenizers.SentencePiece.SentencePieceDecoderStreamingContext
tokenizer_decode_streaming: !name:{_STREAMING_PARTS}.decode_more
"""


def content_of(run_folder):
    """The content of a folder for SpeechBrain, whose classes give the texts that the run's test gave.

    A streaming run is for ``StreamingASR``, any other for ``EncoderASR`` or ``EncoderDecoderASR``.

    Arguments
    ---------
    run_folder : str or Path

    Returns
    -------
    mamba_speech.export.content.Content

    Raises
    ------
    FileNotFoundError, ValueError
        As :meth:`mamba_speech.asr.recognizer.Recognizer.load`; also of a run of xi-j/Mamba-ASR.
    """
    if is_published(run_folder):
        raise ValueError(
            f"{run_folder}: is a run of xi-j/Mamba-ASR, which export does not take: give it to the other commands as "
            "it is"
        )
    run = load_run(
        run_folder,
        wanted=["compute_features", "normalize", "sample_rate", "fidelity", "tokenizer_file"],
        optional=DECODING_OPTIONS,
        selection_key=("WER", "token_error"),
    )
    tokenizer = Tokenizer(run["tokenizer_file"])
    # as the run was tested; what is wrong with its parts is said here
    decoder = decoder_of_run(run, run_folder, tokenizer)
    kept = {"sample_rate", "fidelity", *DECODING_OPTIONS, *_NETWORKS} - {_LM, _NGRAM, "lm"}
    content = Content(
        interface="EncoderASR",
        options=dump({"tokenizer_file": _TOKENIZER}),
        networks={name: run[name] for name in ("model", "normalize")},
        loadables={"tokenizer": _TOKENIZER},
        writers={_TOKENIZER: lambda path: copy_file(run["tokenizer_file"], path)},
    )
    nodes = nodes_of(run_folder, kept)
    if isinstance(run["model"], S2SRecognizer):
        nodes += _add_language_model(content, run, run_folder, tokenizer)
    elif run.get(_NGRAM):
        content.options += dump(_add_ngram(content, run[_NGRAM]))
    content.options += write_nodes(nodes) + _EVERY + _interface(content, run, decoder, tokenizer)
    return content


def _add_language_model(content, run, run_folder, tokenizer):
    """The language model of an S2S run becomes one of the networks; its key and value in the YAML."""
    lm = language_model_of_run(run, run_folder, tokenizer)
    if lm is None:
        return []
    content.networks["lm"] = lm
    if "lm" in run:
        return nodes_of(run_folder, ["lm"])
    if isinstance(lm, MambaLM):
        return nodes_of(source_of_language_model(run, run_folder), {"model": "lm"})
    sizes = PUBLISHED_SIZES | {name: run[name] for name in PUBLISHED_SIZES if name in run}
    text = _TRANSFORMER_LM.format(vocab=run["model"].seq_lin.w.out_features, **sizes)
    return yaml.compose(text, Loader=yaml.SafeLoader).value


def _add_ngram(content, source):
    """A CTC run's n-gram model goes into the folder; its key in the YAML."""
    name = f"ngram{Path(source).suffix}"
    content.writers[name] = lambda path: copy_file(source, path)
    return {_NGRAM: name}


def _interface(content, run, decoder, tokenizer):
    """The part of the YAML for SpeechBrain's class, whose name the content gets."""
    network = _streaming_network(run)
    if network is not None:
        content.interface = "StreamingASR"
        content.limits.append(
            "`StreamingASR` takes CTC's best path, and hears the zeros by which SpeechBrain ends a stream."
        )
        return _STREAMING.format(frame_samples=network.frame_samples)
    if not isinstance(decoder, CTCDecoder):
        content.interface = "EncoderDecoderASR"
        options = {S2S_OPTIONS[name]: run[name] for name in S2S_OPTIONS if name in run}
        lines = dump(options) + ("lm: !ref <lm>\n" if "lm" in content.networks else "")
        return _S2S.format(options=_indent(lines))
    if decoder.decoding == "greedy":
        return _CTC + _GREEDY.format(vocabulary=len(tokenizer))
    options = {BEAM_OPTIONS[name]: run[name] for name in BEAM_OPTIONS if name in run}
    # SpeechBrain would look for it in the folder that the process is in
    if options.pop(BEAM_OPTIONS[_NGRAM], None):
        content.limits.append(f"`EncoderASR` searches without `{_NGRAM}`, which this project uses.")
    return _CTC + _BEAM.format(options=_indent(dump({"blank_index": tokenizer.blank, **options})))


def _streaming_network(run):
    """The network of a stream; None of a run that cannot read one."""
    try:
        return StreamingNetwork(*(run[name] for name in _NETWORKS))
    except ValueError:
        return None


def _indent(text):
    return "\n".join(f"    {line}" for line in text.splitlines())
