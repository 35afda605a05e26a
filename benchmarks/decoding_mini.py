"""The search of a small recogniser, compiled and plain, with other decodings beside it; part of ``decoding.py``.

Sizes are those of conmambamamba_mini.yaml (beam 10), with random weights. Utterances are 4 to 6 s long, and a
hypothesis has a token every third frame. Times are process time, of all threads.
"""

import statistics
import time
from dataclasses import replace

import decoding_models as models
import torch
from speechbrain.decoders import ctc_greedy_decode
from speechbrain.decoders.ctc import CTCBeamSearcher

from modules.asr.decoding import ctc_scorer
from modules.asr.decoding.beam_search import MambaBeamSearcher, TransformerBeamSearcher
from modules.asr.decoding.lm_scorer import LMScorerBuilder
from modules.asr.mamba_decoder import reorder_state
from modules.lengths import relative_lengths

COMPILED, PLAIN = "Mamba decoder, compiled", "Mamba decoder, plain"
TRANSFORMER, GREEDY, PREFIX = "Transformer decoder", "CTC greedy", "CTC prefix beam"
BATCHES = (1, 8)
# scores of the compiled and of the plain search differ by rounding only
MOST_DIFFERENCE = 1e-4
_FRAMES_A_SECOND = 25


class PlainSearcher(MambaBeamSearcher):
    """The search that copies states at each step and runs layers by torch's operations: the reference."""

    def forward_step(self, inp_tokens, memory, enc_states, enc_lens):
        """Log-probabilities after one token more."""
        prediction, memory = self.model.decode_step(inp_tokens, memory)
        return self._log_probs(prediction), memory, None

    def permute_mem(self, memory, index):
        """Copy the states of the hypotheses that were kept."""
        return reorder_state(memory, index)

    def _update_reset_memory(self, enc_states, enc_lens):
        memory, scorer_memory = super()._update_reset_memory(enc_states, enc_lens)
        return reorder_state(memory.state, memory.parents), scorer_memory


# SpeechBrain's ScorerBuilder reads the name of the class: it has to be this one.
class CTCScorer(ctc_scorer.CTCScorer):
    """CTC scores by torch's operations: the reference."""

    def prefix_scores(self, log_probs):
        """The class of the plain way."""
        return ctc_scorer.CTCPrefixScore


def sizes_of(sizes):
    """The mini recogniser's, or the quick ones as they are."""
    if sizes.vocabulary < 100:
        return sizes
    return replace(sizes, d_model=128, layers=2, d_ffn=256, vocabulary=100, beam=10, frames=150)


def decodings(sizes, batch):
    """Functions that decode a batch of random utterances, and the seconds of its audio."""
    generator = torch.Generator().manual_seed(1)
    encoded = torch.randn(batch, sizes.frames, sizes.d_model, generator=generator)
    # 8 of uneven lengths, the first as long as the only one of a batch of 1
    lengths = torch.linspace(sizes.frames, sizes.frames * 2 / 3, batch).long()
    relative = relative_lengths(lengths, sizes.frames)
    layer = models.ctc_scorer(models.EXACT, sizes.d_model, sizes.vocabulary).ctc_fc
    made = {kind: models.network(kind, sizes) for kind in ("mamba", "transformer")}

    def search(kind, searcher, scorer):
        ctc = scorer(layer, blank_index=models.BLANK, eos_index=models.END)
        builder = LMScorerBuilder({"ctc": models.CTC_WEIGHT}, [ctc], [])
        hypotheses, _, scores, _ = searcher(
            modules=made[kind],
            bos_index=models.START,
            eos_index=models.END,
            min_decode_ratio=0.3,
            max_decode_ratio=1 / 3,
            beam_size=sizes.beam,
            using_eos_threshold=False,
            scorer=builder,
        )(encoded, relative)
        return hypotheses, scores

    def log_probs():
        return layer(encoded).log_softmax(-1)

    def prefix_beam():
        beam = CTCBeamSearcher(
            blank_index=models.BLANK,
            vocab_list=["", " ", *(chr(0x100 + i) for i in range(2, sizes.vocabulary))],
            beam_size=sizes.beam,
        )
        return [beam(one[None, :frames]) for one, frames in zip(log_probs(), lengths, strict=True)]

    functions = {
        COMPILED: lambda: search("mamba", MambaBeamSearcher, ctc_scorer.CTCScorer),
        PLAIN: lambda: search("mamba", PlainSearcher, CTCScorer),
        TRANSFORMER: lambda: search("transformer", TransformerBeamSearcher, ctc_scorer.CTCScorer),
        GREEDY: lambda: ctc_greedy_decode(log_probs(), relative, blank_id=models.BLANK),
        PREFIX: prefix_beam,
    }
    return functions, float(lengths.sum()) / _FRAMES_A_SECOND


def measure_mini(sizes, options):
    """Process time of each decoding and batch, in turn.

    Raises
    ------
    RuntimeError
        If the compiled search finds other hypotheses or scores than the plain one.
    """
    sizes, rows = sizes_of(sizes), []
    for batch in BATCHES:
        functions, audio = decodings(sizes, batch)
        (found, scores), (wanted, their_scores) = functions[COMPILED](), functions[PLAIN]()
        difference = float((scores - their_scores).abs().max())
        if found != wanted or not difference <= MOST_DIFFERENCE:
            raise RuntimeError(
                f"{COMPILED}: other hypotheses than {PLAIN}, or scores {difference:.1e} apart"
            )
        times = {name: [] for name in functions}
        for _ in range(3 * options.rounds):
            for name, function in functions.items():
                start = time.process_time()
                function()
                times[name].append(time.process_time() - start)
        for name, seconds in times.items():
            rows.append(
                {
                    "batch": batch,
                    "decoding": name,
                    "seconds": statistics.median(seconds),
                    "least": min(seconds),
                    "audio": audio,
                    "largest_difference": difference if name == COMPILED else None,
                }
            )
    return rows
