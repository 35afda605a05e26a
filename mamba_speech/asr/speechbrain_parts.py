"""What SpeechBrain's ``EncoderASR`` and ``EncoderDecoderASR`` take a recogniser of this project for.

They pass relative lengths around, and round them to frames. :class:`Encoder` marks the frames behind an utterance's
end, and the decoders here count the others, so that an utterance has the frames that it has alone.
"""

import sentencepiece
import torch
from speechbrain.decoders import ctc_greedy_decode
from speechbrain.decoders.ctc import CTCBeamSearcher

from mamba_speech.asr.decoders import S2SDecoder
from mamba_speech.asr.tokenizer import Tokenizer
from modules.asr.s2s import S2SRecognizer
from modules.lengths import relative_lengths, sample_counts
from modules.ssm.masking import valid_frames


class LoadedTokenizer(sentencepiece.SentencePieceProcessor):
    """SentencePiece's processor, empty until SpeechBrain loads it, with what decoders ask of a :class:`.Tokenizer`."""

    blank, control = Tokenizer.blank, Tokenizer.control

    def labels(self):
        """The text of every token; ``\\u2581`` marks the start of a word."""
        return [self.id_to_piece(index) for index in range(self.vocab_size())]


class Encoder(torch.nn.Module):
    """From waveforms to what a decoder reads: encoder states, or CTC's log-probabilities of a network without decoder.

    Arguments
    ---------
    compute_features, normalize, model : torch.nn.Module
        Networks of a run.
    """

    def __init__(self, compute_features, normalize, model):
        super().__init__()
        self.compute_features, self.normalize, self.model = compute_features, normalize, model

    def forward(self, wavs, wav_lens):
        """Outputs (batch, time, outputs) of ``wavs`` (batch, samples) with relative lengths ``wav_lens`` (batch,).

        Behind the end of an utterance, encoder states are zero, and the blank has all the probability.
        """
        samples = sample_counts(wav_lens, wavs.shape[1]).cpu()
        features, lengths = self.compute_features(wavs, samples=samples)
        normalised = self.normalize(features, relative_lengths(lengths, features.shape[1]))
        inputs = (normalised, lengths, wav_lens)
        has_decoder = isinstance(self.model, S2SRecognizer)
        outputs, lengths = self.model.encode(*inputs) if has_decoder else self.model(*inputs)
        valid = valid_frames(lengths.to(outputs.device), outputs.shape[1], outputs.device)
        behind = torch.zeros_like(outputs[:1, :1])
        if not has_decoder:
            behind[..., torch.arange(outputs.shape[2]) != Tokenizer.blank] = -torch.inf
        return torch.where(valid[..., None], outputs, behind)


def greedy_tokens(log_probs, wav_lens=None, *, vocabulary):
    """Tokens of CTC's best path.

    Arguments
    ---------
    log_probs : torch.Tensor
        (batch, time, outputs), of :class:`Encoder`, which tells the lengths too.
    wav_lens : torch.Tensor, optional
        Not read.
    vocabulary : int
        Tokens of the tokenizer; outputs past them are never read.

    Returns
    -------
    list of list of int
    """
    relative = relative_lengths(_ctc_frames(log_probs), log_probs.shape[1])
    known = log_probs[..., :vocabulary]
    return ctc_greedy_decode(known, relative.to(known.device), blank_id=Tokenizer.blank)


class BeamSearcher(CTCBeamSearcher):
    """SpeechBrain's CTC beam search over outputs of :class:`Encoder`; arguments are SpeechBrain's own."""

    def __call__(self, log_probs, wav_lens=None, lm_start_state=None):
        """Hypotheses of each utterance of (batch, time, outputs)."""
        counts = _ctc_frames(log_probs)
        known = log_probs[..., : len(self.vocab_list)].clone()
        # start and end of a sentence are never targets, and have no text
        known[..., list(Tokenizer.control)] = -torch.inf
        search = super().__call__
        return [
            search(item[None, :count], None, lm_start_state)[0]
            for item, count in zip(known, counts, strict=True)
        ]


class JointDecoder(torch.nn.Module):
    """The joint search of an S2S run over encoder states of :class:`Encoder`.

    Arguments
    ---------
    model : modules.asr.s2s.S2SRecognizer
    tokenizer : LoadedTokenizer
    lm : torch.nn.Module, optional
        Language model.
    **options
        Options of :class:`mamba_speech.asr.decoders.JointSearch`.
    """

    def __init__(self, model, tokenizer, lm=None, **options):
        super().__init__()
        self.model, self.lm = model, lm
        self.decode = S2SDecoder(model, tokenizer, lm, **options)

    def forward(self, encoded, wav_lens):
        """Tokens of each utterance, and three times None, where SpeechBrain's searchers give scores."""
        frames = _count_frames(encoded.abs().sum(-1) > 0)
        return self.decode.tokens(encoded, frames), None, None, None


def _ctc_frames(log_probs):
    """Frames of each utterance: in none of them is the blank certain."""
    others = torch.cat(
        [log_probs[..., : Tokenizer.blank], log_probs[..., Tokenizer.blank + 1 :]], -1
    )
    return _count_frames(torch.isfinite(others).any(-1))


def _count_frames(is_frame):
    """Counts (batch,) of (batch, time) up to the last frame that is one; 1 at least."""
    numbers = torch.arange(1, is_frame.shape[1] + 1, device=is_frame.device)
    return (numbers * is_frame).amax(1).clamp(min=1)
