"""Networks through ``torch.jit.trace``: a trace made at one length gives at another what the network gives."""

import pytest
import torch

from modules.ssm import use_backend
from modules.ssm.cpu import refusal
from tests.support.keyword_networks import SEQUENCE
from tests.support.recognition_networks import (
    CTC_ENCODERS,
    PAIRS,
    ctc_recognizer,
    recognizer,
    transformer,
)
from tests.support.separation_networks import MASK_NETS, tiny

compiled = pytest.mark.skipif(refusal() is not None, reason=f"no compiled kernels: {refusal()}")
# SpeechBrain makes its table of rotations in Python, for the length of the trace
FIXED = "RoPEMHA"
# checks of the given lengths and shapes, which a trace leaves out
pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning"),
]


def quick(names, first):
    """Parameters of which only the first is for every run of the tests: a trace takes a second or two."""
    exhaustive = pytest.mark.exhaustive
    return [name if name == first else pytest.param(name, marks=exhaustive) for name in names]


class Encoder(torch.nn.Module):
    """What a sequence-to-sequence recogniser runs before it searches."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, features, lengths):
        encoded, lengths = self.model.encode(features, lengths)
        return encoded, self.model.ctc_log_probs(encoded), lengths


def assert_trace_follows(model, *batches):
    """A trace made of the first batch gives for the others what the network gives."""
    with torch.no_grad():
        traced = torch.jit.trace(model, batches[0], check_trace=False)
        for batch in batches:
            wanted, found = model(*batch), traced(*batch)
            if isinstance(wanted, torch.Tensor):
                wanted, found = [wanted], [found]
            assert len(found) == len(wanted)
            for one, other in zip(found, wanted, strict=True):
                assert one.shape == other.shape and torch.allclose(one, other, atol=1e-5)


def features(*lengths, channels, tokens=0):
    """Padded features, their frame counts and, if wanted, as many tokens an utterance."""
    given = torch.randn(len(lengths), max(lengths), channels), torch.tensor(lengths)
    return (*given, torch.randint(1, 9, (len(lengths), tokens))) if tokens else given


@compiled
@pytest.mark.parametrize("encoder", quick([e for e in CTC_ENCODERS if e != FIXED], "conmamba"))
def test_a_traced_ctc_recogniser_is_the_network_at_any_length(encoder):
    batches = (features(60, 40, channels=20), features(93, 40, 77, channels=20))
    assert_trace_follows(ctc_recognizer(encoder), *batches, features(700, channels=20))


@compiled
@pytest.mark.parametrize("pair", quick(PAIRS, ("conmamba", "mamba")), ids="-".join)
def test_a_traced_sequence_to_sequence_recogniser_is_the_network_at_any_length(pair):
    encoder, decoder = pair
    model = recognizer(transformer(encoder, decoder, input_size=16), features=8, channels=(4, 8))
    assert_trace_follows(
        model.eval(),
        features(60, 40, channels=8, tokens=3),
        features(93, 40, 77, channels=8, tokens=5),
    )
    batches = (features(60, 40, channels=8), features(93, 40, 77, channels=8))
    assert_trace_follows(Encoder(model).eval(), *batches)


@compiled
@pytest.mark.parametrize("kind", quick(MASK_NETS, "mambatasnet"))
def test_a_traced_separator_is_the_network_at_any_length(kind):
    model = tiny(kind)
    batches = [(torch.randn(len(s), max(s)), torch.tensor(s)) for s in ([400, 300], [777, 300, 16])]
    assert_trace_follows(model, *batches)
    assert_trace_follows(model, *([mix] for mix, _ in batches))


@compiled
@pytest.mark.parametrize("name", quick(SEQUENCE, "mamba_mfcc"))
def test_a_traced_keyword_network_is_the_network_at_any_length(name):
    build, kind = SEQUENCE[name]
    model, channels = build(dropout=0.0).eval(), 24 if kind == "mel" else 12
    batches = features(30, 21, channels=channels), features(25, 47, 2, channels=channels)
    assert_trace_follows(model, *batches)
    assert_trace_follows(model, *([x] for x, _ in batches))


@pytest.mark.parametrize("name, backend", [("conmamba", "torch"), (FIXED, "auto")])
def test_a_trace_that_holds_at_one_length_only_refuses_another(name, backend):
    model, lengths = ctc_recognizer(name), torch.tensor([60, 40])
    # the loops of the torch backend are unrolled for the length of the trace
    with torch.no_grad(), use_backend(backend):
        traced = torch.jit.trace(model, features(60, 40, channels=20), check_trace=False)
        x = torch.randn(2, 60, 20)
        assert torch.allclose(traced(x, lengths)[0], model(x, lengths)[0], atol=1e-5)
        with pytest.raises(RuntimeError):
            traced(*features(93, 77, channels=20))
