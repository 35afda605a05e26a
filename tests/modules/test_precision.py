"""Float64 from end to end: what is given in float64 is computed in it, and nothing on the way is rounded to float32."""

import pytest
import torch
from speechbrain.decoders.scorer import ScorerBuilder

from modules.asr.decoding import CTCScorer, MambaBeamSearcher, TransformerBeamSearcher
from modules.asr.lm import MambaLM
from modules.asr.normalization import GlobalNormalization
from modules.frontend import FilterbankFeatures
from tests.support.recognition_networks import (
    CTC_ENCODERS,
    PAIRS,
    ctc_recognizer,
    recognizer,
    transformer,
)


def assert_computed_in_float64(function, x, single):
    """``function(x)`` is float64, near the float32 result, and moves with changes that float32 does not see."""
    out, nudged = function(x), function(x * (1 + 1e-11))
    assert out.dtype == torch.float64
    assert torch.allclose(out.float(), single, atol=1e-3)
    assert 0 < (nudged - out).abs().max() < 1e-8


@pytest.mark.parametrize("encoder", CTC_ENCODERS)
def test_a_ctc_recogniser_in_float64_from_the_waveform_on(encoder):
    fbank, normalize = FilterbankFeatures(n_mels=20), GlobalNormalization()
    model = ctc_recognizer(encoder)
    wavs, samples = 0.1 * torch.randn(2, 8000).double(), torch.tensor([8000, 5000])
    normalize(fbank(wavs.float(), samples=samples)[0], torch.ones(2), epoch=1)
    normalize.eval()

    def recognise(wavs):
        features, lengths = fbank(wavs, samples=samples)
        return model(normalize(features), lengths)[0]

    with torch.no_grad():
        single = recognise(wavs.float())
        model.double()
        assert_computed_in_float64(recognise, wavs, single)
        # and back
        model.float()
        assert torch.equal(recognise(wavs.float()), single)


@pytest.mark.parametrize("encoder, decoder", PAIRS)
def test_a_sequence_to_sequence_recogniser_and_its_search_in_float64(encoder, decoder):
    model = recognizer(
        transformer(encoder, decoder, input_size=16), features=8, channels=(4, 8)
    ).eval()
    features, lengths = torch.randn(2, 60, 8).double(), torch.tensor([60, 44])
    tokens = torch.tensor([[1, 5, 7], [1, 6, 0]])
    names = ("ctc_log_probs", "seq_log_probs", "encoded")
    with torch.no_grad():
        single = {name: getattr(model(features.float(), lengths, tokens), name) for name in names}
        model.double()
        for name in names:
            assert_computed_in_float64(
                lambda x, name=name: getattr(model(x, lengths, tokens), name),
                features,
                single[name],
            )
        searcher = MambaBeamSearcher if decoder == "mamba" else TransformerBeamSearcher
        ctc = CTCScorer(model.ctc_lin, blank_index=0, eos_index=2)
        search = searcher(
            [model.Transformer, model.seq_lin],
            bos_index=1,
            eos_index=2,
            min_decode_ratio=0.0,
            max_decode_ratio=0.4,
            beam_size=3,
            scorer=ScorerBuilder({"ctc": 0.4}, [ctc]),
        )
        memory, _ = model.encode(features, lengths)
        scores = search(memory, torch.ones(2))[2]
        assert scores.dtype == torch.float64 and scores.isfinite().all()
        assert scores.ne(scores.float()).any()


def test_a_language_model_gives_float64_whole_and_step_by_step():
    lm, tokens = (
        MambaLM(vocab=20, d_model=16, n_layers=2).double().eval(),
        torch.tensor([[1, 4, 9]]),
    )
    with torch.no_grad():
        whole, state = lm(tokens), lm.initial_state(1)
        for index, token in enumerate(tokens.unbind(1)):
            logits, state = lm.step(token, state)
            assert logits.dtype == whole.dtype == torch.float64
            assert torch.allclose(logits, whole[:, index], rtol=1e-12, atol=1e-14)
