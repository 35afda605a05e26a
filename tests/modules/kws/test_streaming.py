"""Causal keyword networks: streams give what the whole gives, and a clip in context what a stream gives."""

import pytest
import torch

from modules.kws import mamba
from modules.kws.features import KeywordFeatures
from modules.kws.mamba import MambaKeywordSpotter
from modules.kws.spotter import masked_mean
from tests.support.keyword_networks import FEATURES, SEQUENCE, SMALL, perturbed


@pytest.mark.parametrize("kind", ["mel", "mfcc"])
@pytest.mark.parametrize("chunks", [[33], [1] * 33, [2, 7, 1, 0, 12, 11]])
def test_a_causal_network_in_chunks_gives_what_it_gives_for_the_whole(kind, chunks):
    torch.manual_seed(6)
    model = perturbed(MambaKeywordSpotter(feature_dim=24, kind=kind, causal=True, **SMALL))
    x = torch.randn(2, 33, 24)
    with torch.no_grad():
        state, parts = model.initial_state(2), []
        for chunk in x.split(chunks, 1):
            part, state = model.forward_chunk(chunk, state)
            parts.append(part)
        assert torch.allclose(torch.cat(parts, 1), model.embed(x)[0], atol=1e-4)


@pytest.mark.parametrize("window", [None, 1, 5, 100])
def test_streamed_logits_are_the_classifier_on_the_mean_over_the_window(window):
    torch.manual_seed(7)
    model = perturbed(MambaKeywordSpotter(feature_dim=24, causal=True, **SMALL))
    x = torch.randn(2, 40, 24)
    with torch.no_grad():
        state, parts = model.initial_state(2, window), []
        for chunk in x.split([3, 10, 1, 26], 1):
            part, state = model.stream(chunk, state)
            parts.append(part)
        logits, embedding = torch.cat(parts, 1), model.embed(x)[0]
        for t in range(embedding.shape[1]):
            start = 0 if window is None else max(0, t + 1 - window)
            wanted = model.classify(embedding[:, start : t + 1].mean(1))
            assert torch.allclose(logits[:, t], wanted, atol=1e-4)
        if window in (None, 100):
            assert torch.allclose(logits[:, -1], model(x), atol=1e-4)


def test_from_samples_to_logits_a_stream_gives_what_the_whole_gives_at_every_frame():
    torch.manual_seed(8)
    features = KeywordFeatures("mel", causal=True, **FEATURES)
    model = perturbed(MambaKeywordSpotter(feature_dim=24, causal=True, **SMALL))
    wavs = torch.randn(1, 64 * 50)
    with torch.no_grad():
        carried, state, parts = features.initial_state(1), model.initial_state(1), []
        for chunk in wavs.split(160, 1):
            x, carried = features.forward_chunk(chunk, carried)
            part, state = model.stream(x, state)
            parts.append(part)
        logits = torch.cat(parts, 1)
        for frame in (1, 7, 25):
            whole = model(features(wavs[:, : 128 * frame])[0])
            assert torch.allclose(logits[:, frame - 1], whole, atol=1e-4)


@pytest.mark.parametrize("kind", ["mel", "mfcc"])
def test_a_clip_in_context_gives_what_a_stream_gives_where_the_clip_ends(kind):
    torch.manual_seed(12)
    features = KeywordFeatures(kind, causal=True, **FEATURES)
    model = MambaKeywordSpotter(
        feature_dim=features.n_features, kind=kind, causal=True, **(SMALL | {"n_classes": 4})
    )
    model = perturbed(model)
    hop = 64 * model.subsampling
    samples = torch.tensor([40 * hop, 29 * hop, 12 * hop + 3])
    context = torch.tensor([28 * hop - 57, 1, 0])
    wavs = torch.randn(3, int(samples.max()))
    with torch.no_grad():
        x, lengths = features(wavs, samples)
        logits = model(x, lengths, features.frames(context))
        for item in (0, 1):
            clip = int(samples[item] - context[item])
            state = model.initial_state(1, window=clip // hop)
            x, _ = features.forward_chunk(
                wavs[item : item + 1, : samples[item]], features.initial_state(1)
            )
            streamed, _ = model.stream(x, state)
            assert streamed.shape[1] * hop == samples[item]
            assert torch.allclose(logits[item], streamed[0, -1], atol=1e-4)
        # nothing before it: the clip as it is anywhere else
        alone = model(*features(wavs[2:, : samples[2]]))
        assert torch.allclose(logits[2], alone[0], atol=1e-4)
        whole = model(*features(wavs[:1]))
        assert not torch.allclose(logits[0], whole[0], atol=1e-3)


def test_windows_of_the_context_are_classified_as_a_stream_classifies_them():
    torch.manual_seed(14)
    model = perturbed(
        MambaKeywordSpotter(feature_dim=24, causal=True, **(SMALL | {"n_classes": 4}))
    )
    x, context = torch.randn(3, 40, 24), torch.tensor([30, 9, 7])
    with torch.no_grad():
        logits, along = model(x, None, context, 5)
        assert torch.allclose(logits, model(x, None, context), atol=1e-6)
        streamed, _ = model.stream(x, model.initial_state(3, window=5))
        # two frames of features are one of the network: 15, 5 and 4 frames hold 11, 1 and no whole window
        wanted = torch.cat([streamed[0, 4:15], streamed[1, 4:5]])
        assert torch.allclose(along, wanted, atol=1e-4)
        assert model(x, None, torch.tensor([3, 0, 0]), 5)[1].shape == (0, 4)
    with pytest.raises(ValueError, match="give it too"):
        model(x, None, None, 5)


def test_context_is_read_but_gets_its_gradient_through_the_state_alone():
    torch.manual_seed(13)
    model = SEQUENCE["causal"][0](dropout=0.0).eval()
    x = torch.randn(1, 30, 24, requires_grad=True)
    model(x, None, torch.tensor([20])).square().sum().backward()
    assert x.grad[0, :20].any() and x.grad[0, 20:].any()
    x = torch.randn(2, 6, 3)
    got = masked_mean(x, torch.tensor([6, 4]), torch.tensor([2, 9]))
    assert torch.allclose(got, torch.stack([x[0, 2:].mean(0), x[1, 3]]))


@pytest.mark.parametrize("kind", ["mel", "mfcc"])
def test_later_frames_change_nothing_in_a_causal_network_and_something_in_the_others(kind):
    torch.manual_seed(9)
    x = torch.randn(1, 40, 24)
    later = x.clone()
    later[:, 20:] = torch.randn(1, 20, 24)
    for causal, bidirectional in ((True, False), (False, False), (False, True)):
        model = perturbed(
            MambaKeywordSpotter(
                feature_dim=24, kind=kind, causal=causal, bidirectional=bidirectional, **SMALL
            )
        )
        with torch.no_grad():
            seen = 20 // model.subsampling
            before, after = (model.embed(lengths)[0][:, :seen] for lengths in (x, later))
        same = torch.allclose(before, after, atol=1e-5)
        # the published mfcc network reads no later frame as it is
        assert same == (causal or (kind == "mfcc" and not bidirectional))


def test_the_causal_network_takes_the_published_weights():
    published = mamba.mamba_mel_small(5)
    causal = mamba.mamba_mel_small(5, causal=True)
    causal.load_state_dict(published.state_dict(), strict=True)
