"""Distance of a student's embeddings from a teacher's."""

import pytest
import torch

from modules.speaker.embedding_distance import EmbeddingDistance


def without_mean(wanted):
    return wanted - wanted.mean(0)


def test_the_teacher_s_own_embeddings_are_at_distance_0_of_whatever_length():
    distance, wanted = EmbeddingDistance(6, 6, head=False), torch.randn(5, 6)
    assert distance(3 * without_mean(wanted), wanted).item() == pytest.approx(0, abs=1e-6)
    assert distance(torch.randn(5, 6), wanted) > 0.1


def test_what_all_voices_share_does_not_count():
    embeddings, wanted = torch.randn(5, 6), torch.randn(5, 9)
    distances = [EmbeddingDistance(6, 9), EmbeddingDistance(6, 9)]
    distances[1].load_state_dict(distances[0].state_dict())
    first, second = (
        one(embeddings, wanted + shift).item() for one, shift in zip(distances, (0, 7), strict=True)
    )
    assert first == pytest.approx(second, rel=1e-4)


def test_the_mean_is_over_the_training_so_far_and_a_checkpoint_holds_it():
    distance, batches = EmbeddingDistance(6, 9), [torch.randn(count, 9) for count in (5, 2, 4)]
    for wanted in batches:
        distance(torch.randn(len(wanted), 6), wanted)
    assert torch.allclose(distance.state_dict()["mean"], torch.cat(batches).mean(0), atol=1e-6)
    distance.eval()
    distance(torch.randn(3, 6), torch.ones(3, 9))
    assert distance.count == 11


def test_similarities_know_no_common_space():
    rotation, _ = torch.linalg.qr(torch.randn(6, 6))
    distance, wanted = EmbeddingDistance(6, 6, cosine_weight=0), torch.randn(5, 6)
    own = without_mean(wanted) @ rotation
    assert distance(own, wanted).item() == pytest.approx(0, abs=1e-6)
    assert list(distance.parameters()) == []


def test_similarities_are_those_of_all_pairs():
    embeddings, wanted = torch.randn(4, 6), torch.randn(4, 9)
    distance = EmbeddingDistance(6, 9, cosine_weight=0, similarity_weight=2.0)
    centred, pairs = without_mean(wanted), [(i, j) for i in range(4) for j in range(i)]
    differences = [
        (
            torch.cosine_similarity(embeddings[i], embeddings[j], dim=0)
            - torch.cosine_similarity(centred[i], centred[j], dim=0)
        )
        for i, j in pairs
    ]
    expected = 2 * torch.stack(differences).square().mean()
    assert distance(embeddings, wanted).item() == pytest.approx(expected.item(), rel=1e-4)
    assert EmbeddingDistance(6, 9, cosine_weight=0)(embeddings[:1], wanted[:1]) == 0


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="without a head, embedding_size must be the teacher's, 9"):
        EmbeddingDistance(6, 9, head=False)
    with pytest.raises(ValueError, match="must be 0 or more"):
        EmbeddingDistance(6, 6, similarity_weight=-1)
