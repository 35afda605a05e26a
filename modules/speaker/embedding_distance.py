"""Distance of a student's embeddings from a teacher's: each from its own, and all similarities within a batch.

Source of the second: Park et al., "Relational knowledge distillation" (arXiv 1904.05068), with cosines as relations.
"""

import torch
from torch import nn
from torch.nn import functional as F


class EmbeddingDistance(nn.Module):
    """How far a student's embeddings are from those that a teacher makes of the same crops.

    A linear layer maps the student's embeddings into the teacher's space, for the first part alone. The second part
    compares the cosines of all pairs of a batch, so it wants no common space.

    Arguments
    ---------
    embedding_size, teacher_size : int
        Channels of the student's embeddings and of the teacher's.
    cosine_weight : float
        Weight of 1 less the mean cosine between mapped embeddings and the teacher's.
    similarity_weight : float
        Weight of the mean squared difference of the cosines of pairs.

    Raises
    ------
    ValueError
        If a weight is negative.

    Example
    -------
    >>> import torch
    >>> distance = EmbeddingDistance(8, 12)
    >>> distance(torch.randn(4, 8), torch.randn(4, 12)).shape
    torch.Size([])
    """

    def __init__(self, embedding_size, teacher_size, cosine_weight=1.0, similarity_weight=1.0):
        super().__init__()
        if cosine_weight < 0 or similarity_weight < 0:
            raise ValueError(
                "cosine_weight and similarity_weight must be 0 or more; got "
                f"{cosine_weight} and {similarity_weight}"
            )
        self.cosine_weight, self.similarity_weight = cosine_weight, similarity_weight
        self.head = nn.Linear(embedding_size, teacher_size) if cosine_weight else None

    def forward(self, embeddings, wanted):
        """Compare embeddings.

        Arguments
        ---------
        embeddings : torch.Tensor
            (batch, embedding_size) of the student.
        wanted : torch.Tensor
            (batch, teacher_size) of the teacher.

        Returns
        -------
        torch.Tensor
            The weighted sum of both parts; a batch of one has no pairs.
        """
        distance = embeddings.new_zeros(())
        if self.cosine_weight:
            cosines = F.cosine_similarity(self.head(embeddings), wanted, dim=1)
            distance = distance + self.cosine_weight * (1 - cosines.mean())
        if self.similarity_weight and len(embeddings) > 1:
            first, second = torch.triu_indices(
                len(wanted), len(wanted), offset=1, device=wanted.device
            )
            own, theirs = (F.normalize(one, dim=1) for one in (embeddings, wanted))
            own, theirs = (own @ own.T)[first, second], (theirs @ theirs.T)[first, second]
            distance = distance + self.similarity_weight * F.mse_loss(own, theirs)
        return distance
