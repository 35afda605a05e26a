"""Pooling over frames: weighted statistics of an utterance's own frames."""

import pytest
import torch

from modules.speaker.pooling import AttentionPooling, AttentiveStatistics


@pytest.mark.parametrize("kind", [AttentionPooling, AttentiveStatistics])
def test_pooled_frames_are_an_utterances_own(kind):
    torch.manual_seed(0)
    pooling = kind(6, attention_channels=5).double()
    x, lengths = torch.randn(4, 9, 6, dtype=torch.float64), torch.tensor([9, 1, 4, 8])
    pooled = pooling(x, lengths)
    assert pooled.shape == (4, pooling.output_size)
    for item, length in enumerate(lengths):
        torch.testing.assert_close(pooled[item], pooling(x[item : item + 1, :length])[0])


def test_equal_scores_give_the_mean_and_the_deviation():
    pooling = AttentiveStatistics(3).double()
    torch.nn.init.zeros_(pooling.score[2].weight)
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    wanted = torch.cat([x.mean(1), x.std(1, correction=0)], 1)
    torch.testing.assert_close(pooling(x), wanted)
