"""The recognisers of ``streaming.py``: runs of random weights, and SpeechBrain's streaming of a Conformer."""

from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.files import write_text
from mamba_speech.run import load_run
from modules.causal_frontend import stream_subsampling

RATE = 16000
FOLDER = Path(__file__).resolve().parents[1] / "hparams" / "LibriSpeech" / "ASR" / "CTC"
# blank, start, end, and the letters of a text that holds all of them
LETTERS = "the quick brown fox jumps over a lazy dog's back"
CONMAMBA, CONFORMER, WHOLE = "conmamba_streaming", "conformer_streaming", "conmamba"


def write_random_run(folder, yaml, sound, **options):
    """Write what a training of a YAML leaves behind, with random weights.

    The CTC output is zero for the mean frame of the sound, so that its best path wanders through the tokens.

    Arguments
    ---------
    folder : Path
    yaml : str
        Name of a file of the CTC recipe, without its ending.
    sound : torch.Tensor
        (samples,) of speech, for the normalisation.
    **options
        Of the YAML.

    Returns
    -------
    Path
        The folder, for :func:`mamba_speech.run.load_run`.
    """
    (folder / "save").mkdir(parents=True)
    tokens = Tokenizer.train([LETTERS], folder / "save" / "tokenizer.model", "char", size=40)
    options = {"output_folder": str(folder), "output_neurons": len(tokens), **options}
    with open(FOLDER / f"{yaml}.yaml", encoding="utf-8") as file:
        text = resolve_references(file, options).getvalue()
    run = load_hyperpyyaml(text)
    model, normalize = run["model"].eval(), run["normalize"]
    with torch.no_grad():
        features, lengths = run["compute_features"](sound[None], torch.ones(1))
        features = normalize(features, torch.ones(1), epoch=1)
        torch.nn.init.normal_(model.ctc_lin.w.weight)
        encoded, _ = model.Transformer.encode(*model.subsample(features, lengths))
        model.ctc_lin.w.bias.copy_(-model.ctc_lin.w.weight @ encoded.mean((0, 1)))
    run["checkpointer"].save_checkpoint(meta={"epoch": 1, "WER": 100.0})
    write_text(folder / "hyperparams.yaml", text)
    return folder


def parts_of(run):
    """Features, normalisation and model of a run, for one thread on the CPU."""
    wanted = ["compute_features", "normalize"]
    options = load_run(run, wanted=wanted, selection_key=("WER", "token_error"))
    return tuple(options[name] for name in (*wanted, "model"))


class ConformerStream:
    """A Conformer as SpeechBrain streams it, behind the front-end that the ConMamba has.

    Arguments
    ---------
    compute_features : modules.causal_frontend.CausalFilterbankFeatures
    normalize, model : torch.nn.Module
    chunk_size : int
        Frames of a chunk.
    left_context : int
        Chunks before it that the attention reads.
    """

    def __init__(self, compute_features, normalize, model, chunk_size, left_context):
        self.compute_features, self.normalize, self.model = compute_features, normalize, model
        self.chunks = DynChunkTrainConfig(chunk_size, left_context)

    def make_streaming_context(self):
        """What the next piece reads: samples, inputs of the subsampling, frames that wait, and the layers' context."""
        samples = self.compute_features.initial_state(1)
        return [samples, None, None, self.model.Transformer.make_streaming_context(self.chunks)]

    def encode(self, frames, context):
        """The encoder's output of a chunk of subsampled frames."""
        return self.model.Transformer.encode_streaming(frames, context)

    @torch.no_grad()
    def forward_streaming(self, wavs, context):
        """Log-probabilities (1, frames, tokens) of the chunks that the next samples (1, samples) complete."""
        samples, subsampling, waiting, encoder = context
        features, context[0] = self.compute_features.forward_chunk(wavs, samples)
        if features.shape[1]:
            features = self.normalize(features, features.new_ones(1))
        x, context[1] = stream_subsampling(self.model.CNN, features, subsampling)
        frames = [one for one in (waiting, x) if one is not None]
        frames = torch.cat(frames, 1) if frames else wavs.new_zeros(1, 0, 1)
        size, outputs = self.chunks.chunk_size, []
        while frames.shape[1] >= size:
            outputs.append(self.model.ctc_log_probs(self.encode(frames[:, :size], encoder)))
            frames = frames[:, size:]
        context[2] = frames.clone() if frames.shape[1] else None
        return torch.cat(outputs, 1) if outputs else None


class FrontEndStream(ConformerStream):
    """What every stream computes beside its encoder: features, subsampling, and the CTC layer."""

    def encode(self, frames, context):
        """Zeros in place of the encoder's output."""
        return frames.new_zeros(*frames.shape[:2], self.model.ctc_lin.w.in_features)


@torch.no_grad()
def log_probs_of(parts, wavs, chunks):
    """Log-probabilities (frames, tokens) of a whole waveform (1, samples) over chunks; None for the whole."""
    compute_features, normalize, model = parts
    features, lengths = compute_features(wavs, torch.ones(1))
    return model(normalize(features, torch.ones(1)), lengths, chunks=chunks).log_probs[0]
