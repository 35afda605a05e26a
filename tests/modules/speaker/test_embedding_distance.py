"""Distance of a student's embeddings from a teacher's."""

import pytest
import torch

from modules.speaker.embedding_distance import EmbeddingDistance


def test_the_teacher_s_own_embeddings_are_at_distance_0_of_whatever_length():
    distance, wanted = EmbeddingDistance(6, 6), torch.randn(5, 6)
    with torch.no_grad():
        distance.head.weight.copy_(torch.eye(6))
        distance.head.bias.zero_()
    assert distance(3 * wanted, wanted).item() == pytest.approx(0, abs=1e-6)
    assert distance(torch.randn(5, 6), wanted) > 0.1


def test_similarities_know_no_common_space():
    rotation, _ = torch.linalg.qr(torch.randn(6, 6))
    distance, wanted = EmbeddingDistance(6, 6, cosine_weight=0), torch.randn(5, 6)
    assert distance(wanted @ rotation, wanted).item() == pytest.approx(0, abs=1e-6)
    assert list(distance.parameters()) == []


def test_similarities_are_those_of_all_pairs():
    embeddings, wanted = torch.randn(4, 6), torch.randn(4, 9)
    distance = EmbeddingDistance(6, 9, cosine_weight=0, similarity_weight=2.0)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    differences = [
        (
            torch.cosine_similarity(embeddings[i], embeddings[j], dim=0)
            - torch.cosine_similarity(wanted[i], wanted[j], dim=0)
        )
        for i, j in pairs
    ]
    expected = 2 * torch.stack(differences).square().mean()
    assert distance(embeddings, wanted).item() == pytest.approx(expected.item(), rel=1e-4)
    assert distance(embeddings[:1], wanted[:1]) == 0


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="must be 0 or more"):
        EmbeddingDistance(6, 6, similarity_weight=-1)
