"""Recognisers along a stream: piece by piece the whole, no future, and a context that is all there is to carry."""

import pickle
import subprocess
import sys
import threading
import time

import pytest
import torch
from speechbrain.nnet.linear import Linear

from modules.asr.ctc import ConmambaCTCEncoder, CTCRecognizer
from modules.asr.normalization import GlobalNormalization
from modules.asr.streaming_network import StreamingNetwork
from modules.causal_frontend import CausalFilterbankFeatures
from modules.frontend import ConvolutionSubsampling, FilterbankFeatures
from tests.support.recognition_networks import ctc_recognizer, recognizer, transformer

# frames of a chunk; None is a causal encoder
CHUNKS = (None, 1, 2, 5)
SIZES = {"input_size": 20, "d_model": 16, "d_ffn": 24, "num_encoder_layers": 2, "kernel_size": 7}


def make_network(kind="CTC", chunk=None, seed=0, **options):
    """A streaming network of 20 features a frame, with fixed weights; ``chunk`` None for a causal encoder."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        causal = {"causal": chunk is None, **options}
        if kind == "CTC":
            cnn = ConvolutionSubsampling((8, 10, 20), out_channels=(8, 4))
            output = Linear(input_size=16, n_neurons=11)
            model = CTCRecognizer(
                cnn, ConmambaCTCEncoder(**SIZES, **causal), output, chunk_size=chunk
            )
        else:
            net = transformer(input_size=20, **causal)
            model = recognizer(net, features=20, channels=(8, 4), chunk_size=chunk)
        normalize = GlobalNormalization()
        normalize(20 * torch.randn(1, 50, 20) - 30, torch.ones(1), epoch=1)
    features = CausalFilterbankFeatures(n_mels=20)
    return StreamingNetwork(features, normalize.eval(), model.eval())


def whole(network, wavs, samples=None):
    """Log-probabilities and counts of frames of whole utterances."""
    model = network.model
    with torch.no_grad():
        features, lengths = network.compute_features(wavs, samples=samples)
        features = network.normalize(features)
        if isinstance(model, CTCRecognizer):
            return model(features, lengths)[:2]
        encoded, lengths = model.encode(features, lengths)
        return model.ctc_log_probs(encoded), lengths


def streamed(network, wavs, seed=0):
    """Log-probabilities of streams in pieces of random lengths."""
    context, start, outputs = network.make_streaming_context(len(wavs)), 0, []
    generator = torch.Generator().manual_seed(seed)
    while start < wavs.shape[1]:
        size = (0, 1, 100, 640, 1281, 6000)[torch.randint(6, (), generator=generator)]
        outputs.append(network.forward_streaming(wavs[:, start : start + size], context).log_probs)
        start += size
    outputs.append(network.finish(context).log_probs)
    assert context.frames == sum(out.shape[1] for out in outputs)
    assert context.samples == wavs.shape[1]
    return torch.cat(outputs, 1)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("kind", ["CTC", "S2S"])
def test_random_pieces_of_a_waveform_equal_the_whole_on_the_same_chunks(kind, chunk):
    network = make_network(kind, chunk)
    # the last ones end within a hop, a frame of the encoder and a chunk
    for seed, samples in enumerate((1, 639, 640, 3200, 9999, 16000)):
        wavs = 0.1 * torch.randn(2, samples)
        wanted, lengths = whole(network, wavs)
        found = streamed(network, wavs, seed)
        assert found.shape == wanted.shape and set(lengths.tolist()) == {found.shape[1]}
        assert torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_result_waits_for_its_chunk_and_ignores_every_later_sample(chunk):
    network, wavs = make_network(chunk=chunk), 0.1 * torch.randn(1, 32000)
    end = network.latency * 5
    changed = torch.cat([wavs[:, :end], 10 * torch.randn(1, 32000 - end)], 1)
    given = end // network.frame_samples
    before, after = (whole(network, one)[0] for one in (wavs, changed))
    assert torch.equal(before[:, :given], after[:, :given])
    assert not torch.allclose(before[:, given], after[:, given], atol=1e-3)
    # and what has been read so far is given at once, not a frame later
    context = network.make_streaming_context()
    assert network.forward_streaming(wavs[:, : end - 1], context).log_probs.shape[1] < given
    assert network.forward_streaming(wavs[:, end - 1 : end], context).log_probs.shape[1] > 0
    assert context.frames == given


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_padded_batch_equals_each_utterance_alone(chunk):
    network = make_network(chunk=chunk)
    samples = torch.randint(1, 16000, (8,))
    wavs = 0.1 * torch.randn(8, int(samples.max()))
    together, lengths = whole(network, wavs, samples)
    for item, count in enumerate(samples.tolist()):
        alone, own = whole(network, wavs[item : item + 1, :count])
        assert own.item() == lengths[item].item() == alone.shape[1]
        assert torch.allclose(together[item, : lengths[item]], alone[0], atol=1e-4)


OTHER_PROCESS = """
import pickle, sys
network, context, wavs = pickle.load(sys.stdin.buffer)
first = network.forward_streaming(wavs, context)
pickle.dump((first, network.finish(context)), sys.stdout.buffer)
"""


@pytest.mark.parametrize("chunk", [None, 5])
def test_only_the_context_passes_and_another_process_goes_on_with_it(chunk):
    network, wavs = make_network(chunk=chunk), 0.1 * torch.randn(1, 16000)
    context = network.make_streaming_context()
    first = network.forward_streaming(wavs[:, :7777], context).log_probs
    pickled = pickle.dumps(context)
    # tensors of their own size, and no view of what has gone
    assert len(pickled) < context.total_bytes() + 8000
    given = pickle.dumps((make_network(chunk=chunk), context, wavs[:, 7777:]))
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS], input=given, capture_output=True, check=True
    )
    outputs = [out.log_probs for out in pickle.loads(done.stdout)]
    assert torch.allclose(torch.cat([first, *outputs], 1), whole(network, wavs)[0], atol=1e-4)


@pytest.mark.parametrize("chunk", [None, 4])
def test_the_context_stays_as_large_as_it_is(chunk):
    network = make_network(chunk=chunk)
    context, sizes = network.make_streaming_context(), set()
    for _ in range(40):
        network.forward_streaming(0.1 * torch.randn(1, network.latency), context)
        sizes.add((context.total_bytes(), len(pickle.dumps(context)) // 100))
    assert len(sizes) <= 3 and len({total for total, _ in sizes}) == 1
    # of each layer: the block's convolution and scan, and the convolution module
    frames = 6 if chunk is None else 3
    assert context.layer_bytes() == [4 * (32 * (4 + 16) + 16 * frames)] * 2


def test_a_model_gives_any_chunks_and_the_full_context():
    network, wavs = make_network(chunk=4), 0.1 * torch.randn(1, 16000)
    model = network.model
    wide = StreamingNetwork(network.compute_features, network.normalize, model, chunk_size=26)
    one_chunk = streamed(wide, wavs)
    # the streams of one network may have chunks of their own
    for size in (2, 7, 26):
        context = network.make_streaming_context(chunk_size=size)
        outputs = [network.forward_streaming(wavs, context), network.finish(context)]
        model.chunk_size = size
        found = torch.cat([out.log_probs for out in outputs], 1)
        assert torch.allclose(found, whole(network, wavs)[0], atol=1e-4)
    model.chunk_size = None
    assert torch.allclose(one_chunk, whole(network, wavs)[0], atol=1e-4)
    without = StreamingNetwork(network.compute_features, network.normalize, model)
    assert without.make_streaming_context(chunk_size=3).chunk_size == 3
    for use in (without.make_streaming_context, lambda: without.latency):
        with pytest.raises(ValueError, match="give a chunk_size"):
            use()


def test_errors_name_what_is_wrong_and_leave_the_context_as_it_was():
    network = make_network(chunk=4)
    context = network.make_streaming_context()
    network.forward_streaming(0.1 * torch.randn(1, 3000), context)
    before = pickle.dumps(context)
    for piece in (torch.randn(3000), torch.randn(2, 3000), torch.ones(1, 9, dtype=torch.int16)):
        with pytest.raises(ValueError, match="a piece must be"):
            network.forward_streaming(piece, context)
    for wrong in (None, vars(context)):
        with pytest.raises(ValueError, match="make_streaming_context"):
            network.finish(wrong)
    windows = CausalFilterbankFeatures(n_mels=20, n_fft=512)
    with pytest.raises(ValueError, match="another model's"):
        StreamingNetwork(windows, network.normalize, network.model).finish(context)
    # of equal sizes and of other weights
    other = make_network(chunk=4, seed=1)
    for use in (lambda c: other.forward_streaming(torch.randn(1, 9), c), other.finish):
        with pytest.raises(ValueError, match="another model's"):
            use(context)
    assert pickle.dumps(context) == before
    network.finish(context)
    with pytest.raises(ValueError, match="have ended"):
        network.forward_streaming(torch.randn(1, 9), context)
    with pytest.raises(ValueError, match="have ended"):
        network.finish(context)


def test_a_context_serves_one_thread_at_a_time():
    network, wavs = make_network(chunk=4), 0.1 * torch.randn(1, 16000 * 60)
    context, outputs = network.make_streaming_context(), []
    thread = threading.Thread(
        target=lambda: outputs.append(network.forward_streaming(wavs, context).log_probs)
    )
    thread.start()
    while not context.busy and thread.is_alive():
        time.sleep(0.0005)
    with pytest.raises(ValueError, match="in use by another call"):
        network.forward_streaming(torch.randn(1, 9), context)
    thread.join()
    # the first call went on undisturbed, and a piece that fails gives the context back
    with pytest.raises(ValueError, match="a piece must be"):
        network.forward_streaming(torch.randn(9), context)
    outputs.append(network.finish(context).log_probs)
    assert torch.allclose(torch.cat(outputs, 1), whole(network, wavs)[0], atol=1e-4)


@pytest.mark.parametrize("chunk", [None, 4])
def test_a_bad_piece_and_a_failing_model_leave_the_stream_as_good_as_before(chunk):
    network, wavs = make_network(chunk=chunk), 0.1 * torch.randn(1, 16000)
    context, bias = network.make_streaming_context(), network.model.ctc_lin.w.bias
    outputs = [network.forward_streaming(wavs[:, :9999], context).log_probs]
    before = pickle.dumps(context)
    for value in (float("nan"), float("inf"), -1e30, 1e300):
        bad = wavs[:, 9999:].double()
        bad[0, 77] = value
        with pytest.raises(ValueError, match="finite samples"):
            network.forward_streaming(bad, context)
    # far into a piece, when the layers have moved on already
    kept, bias.data = bias.data, bias.data * float("nan")
    for use in (lambda: network.forward_streaming(wavs, context), lambda: network.finish(context)):
        with pytest.raises(ValueError, match="not finite"):
            use()
    bias.data = kept
    assert pickle.dumps(context) == before
    outputs.append(network.forward_streaming(wavs[:, 9999:], context).log_probs)
    outputs.append(network.finish(context).log_probs)
    assert torch.allclose(torch.cat(outputs, 1), whole(network, wavs)[0], atol=1e-4)


@pytest.mark.parametrize("chunk", [None, 7])
def test_a_piece_of_minutes_is_read_part_by_part(chunk):
    network, wavs = make_network(chunk=chunk), 0.1 * torch.randn(1, 16000 * 90 + 77)
    context = network.make_streaming_context()
    outputs = [network.forward_streaming(wavs, context), network.finish(context)]
    assert context.samples == wavs.shape[1]
    found = torch.cat([out.log_probs for out in outputs], 1)
    assert torch.allclose(found, whole(network, wavs)[0], atol=1e-4)


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_precision_streams(dtype, chunk):
    network, wavs = make_network(chunk=chunk), 0.1 * torch.randn(1, 16000)
    wanted = streamed(network, wavs)
    other = StreamingNetwork(
        network.compute_features, network.normalize, network.model.to(dtype), chunk_size=chunk
    )
    # of equal weights, and yet no context of the other
    with pytest.raises(ValueError, match="another model's"):
        other.finish(network.make_streaming_context())
    found = streamed(other, wavs)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    close = 1e-4 if dtype is torch.float64 else 0.2
    assert torch.allclose(found.float(), wanted, atol=close)


@pytest.mark.parametrize("chunk", [None, 4])
def test_streams_of_one_network_run_beside_each_other(chunk):
    network, wavs = make_network(chunk=chunk), 0.1 * torch.randn(3, 16000)
    pair, single = network.make_streaming_context(2), network.make_streaming_context()
    outputs = []
    for start in range(0, 16000, 777):
        piece = wavs[:, start : start + 777]
        parts = (
            network.forward_streaming(piece[:2], pair),
            network.forward_streaming(piece[2:], single),
        )
        outputs.append(torch.cat([part.log_probs for part in parts]))
    outputs.append(torch.cat([network.finish(one).log_probs for one in (pair, single)]))
    assert torch.allclose(torch.cat(outputs, 1), whole(network, wavs)[0], atol=1e-4)


@pytest.mark.parametrize("chunk", [None, 4])
def test_minutes_of_silence_leave_a_stream_as_exact_as_it_was(chunk):
    network = make_network(chunk=chunk)
    wavs = torch.cat([torch.zeros(1, 16000 * 120), 0.1 * torch.randn(1, 16000)], 1)
    context = network.make_streaming_context()
    pieces = wavs.split(199999, 1)
    outputs = [network.forward_streaming(piece, context).log_probs for piece in pieces]
    found = torch.cat([*outputs, network.finish(context).log_probs], 1)
    assert bool(torch.isfinite(found).all())
    assert torch.allclose(found, whole(network, wavs)[0], atol=1e-4)


def test_what_cannot_stream_is_refused_by_name():
    network = make_network(chunk=4)
    features, normalize, model = network.compute_features, network.normalize, network.model
    for size in (0, -1, 2.5):
        with pytest.raises(ValueError, match="chunk_size"):
            StreamingNetwork(features, normalize, model, chunk_size=size)
        with pytest.raises(ValueError, match="chunk_size"):
            network.make_streaming_context(chunk_size=size)
        with pytest.raises(ValueError, match="chunk_size"):
            make_network(chunk=size, causal=False)
    with pytest.raises(ValueError, match="whole utterance's maximum"):
        StreamingNetwork(FilterbankFeatures(n_mels=20), normalize, model)
    with pytest.raises(ValueError, match="only a ConMamba"):
        StreamingNetwork(features, normalize, ctc_recognizer("RoPEMHA"), 4)
    with pytest.raises(ValueError, match="has no chunk_size"):
        StreamingNetwork(features, normalize, make_network().model, 4)
    with pytest.raises(ValueError, match="fidelity corrected"):
        make_network(chunk=4, fidelity="upstream")
    with pytest.raises(ValueError, match="batch"):
        network.make_streaming_context(0)
    with pytest.raises(ValueError, match=r"call eval\(\)"):
        StreamingNetwork(features, normalize, model.train())
