"""BiMamba over chunks: all of the past, the future up to a chunk's end, and nothing behind it."""

import pytest
import torch

from modules.ssm import BiMamba, ChunkedBiMamba
from tests.support.pairs import random_pairs

OPTIONS = [{}, {"dt_bc_norm": True, "bias": True}, {"average": False, "d_conv": 3, "d_state": 5}]
CHUNKS = (1, 2, 5, 16)


def block(**options):
    return ChunkedBiMamba(12, **options).eval()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_chunks_equal_a_bidirectional_block_on_each_chunk_with_carried_state(options):
    net, plain = block(**options), BiMamba(12, **options).eval()
    plain.load_state_dict(net.state_dict(), strict=True)
    x = torch.randn(2, 23, 12)
    with torch.no_grad():
        for size in CHUNKS:
            state, pieces = None, []
            for piece in x.split(size, 1):
                out, state = plain(piece, state=state, return_state=True)
                pieces.append(out)
            whole, last = net(x, return_state=True, chunk_size=size)
            assert torch.allclose(whole, torch.cat(pieces, 1), atol=1e-5)
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(last, state, strict=True))
        assert torch.equal(net(x), plain(x))
        assert torch.equal(net(x, chunk_size=23), plain(x))


def test_several_chunks_at_a_time_go_on_where_the_state_stands():
    net, x = block(), torch.randn(2, 23, 12)
    with torch.no_grad():
        first, state = net(x[:, :12], return_state=True, chunk_size=4)
        pieces = torch.cat([first, net(x[:, 12:], state=state, chunk_size=4)], 1)
        assert torch.allclose(pieces, net(x, chunk_size=4), atol=1e-5)


def test_padded_batch_equals_each_utterance_alone_on_random_length_pairs():
    net = block(bias=True)
    counts, x = torch.randint(0, 30, (12,)), torch.randn(12, 30, 12)
    with torch.no_grad():
        for size in CHUNKS:
            for pair in map(list, random_pairs(12, 50)):
                longest = max(1, int(counts[pair].max()))
                padded = net(x[pair, :longest], counts[pair], chunk_size=size)
                for out, item in zip(padded, pair, strict=True):
                    count = int(counts[item])
                    assert not out[count:].any()
                    if count:
                        alone = net(x[item : item + 1, :count], chunk_size=size)
                        assert torch.allclose(out[:count], alone[0], atol=1e-5)


@pytest.mark.parametrize("size", CHUNKS)
def test_an_output_ignores_what_follows_its_chunk_and_hears_the_chunk_itself(size):
    net, x = block(), torch.randn(1, 32, 12)
    end = 32 // size // 2 * size
    changed = torch.cat([x[:, :end], torch.randn(1, 32 - end, 12)], 1)
    last = x.clone()
    last[:, end - 1] += 1
    with torch.no_grad():
        out = net(x, chunk_size=size)
        assert torch.equal(out[:, :end], net(changed, chunk_size=size)[:, :end])
        moved = (out - net(last, chunk_size=size)).abs().amax((0, 2))
    assert bool((moved[end - size : end] > 0).all()) and not moved[: end - size].any()


def test_every_parameter_gets_its_gradient_and_padding_gets_none():
    net = block()
    x = torch.randn(2, 11, 12, requires_grad=True)
    net(x, torch.tensor([11, 6]), chunk_size=4).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert not x.grad[1, 6:].any()


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_chunks_without_a_frame_are_refused(size):
    with pytest.raises(ValueError, match="chunk_size"):
        block()(torch.randn(1, 4, 12), chunk_size=size)
