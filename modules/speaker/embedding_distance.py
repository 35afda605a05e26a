"""Distance of a student's embeddings from a teacher's: each from its own, and all similarities within a batch.

Source of the second: Park et al., "Relational knowledge distillation" (arXiv 1904.05068), with cosines as relations.
"""

import torch
from torch import nn
from torch.nn import functional as F


class EmbeddingDistance(nn.Module):
    """How far a student's embeddings are from those that a teacher makes of the same crops.

    The first part compares directions, and the second the cosines of all pairs of a batch, which wants no common
    space. The teacher's embeddings count without their mean over the training so far: what all voices share would
    otherwise be most of what the student learns.

    Arguments
    ---------
    embedding_size, teacher_size : int
        Channels of the student's embeddings and of the teacher's.
    cosine_weight : float
        Weight of 1 less the mean cosine between the student's embeddings and the teacher's.
    similarity_weight : float
        Weight of the mean squared difference of the cosines of pairs.
    head : bool
        Whether a linear layer maps the student's embeddings into the teacher's space for the first part. Without, the
        student's space is the teacher's.

    Raises
    ------
    ValueError
        If a weight is negative, or the sizes differ without a head.

    Example
    -------
    >>> import torch
    >>> distance = EmbeddingDistance(8, 12)
    >>> distance(torch.randn(4, 8), torch.randn(4, 12)).shape
    torch.Size([])
    """

    def __init__(
        self, embedding_size, teacher_size, cosine_weight=1.0, similarity_weight=1.0, head=True
    ):
        super().__init__()
        if cosine_weight < 0 or similarity_weight < 0:
            raise ValueError(
                "cosine_weight and similarity_weight must be 0 or more; got "
                f"{cosine_weight} and {similarity_weight}"
            )
        if not head and embedding_size != teacher_size:
            raise ValueError(
                f"without a head, embedding_size must be the teacher's, {teacher_size}; got {embedding_size}"
            )
        self.cosine_weight, self.similarity_weight = cosine_weight, similarity_weight
        self.head = nn.Linear(embedding_size, teacher_size) if head and cosine_weight else None
        self.register_buffer("mean", torch.zeros(teacher_size))
        self.register_buffer("count", torch.zeros(()))

    def _centre(self, wanted):
        """The teacher's embeddings without their mean over the training so far, this batch included."""
        if self.training:
            self.count += len(wanted)
            self.mean += (wanted.mean(0) - self.mean) * (len(wanted) / self.count)
        return wanted - self.mean

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
        distance, wanted = embeddings.new_zeros(()), self._centre(wanted)
        if self.cosine_weight:
            mapped = embeddings if self.head is None else self.head(embeddings)
            cosines = F.cosine_similarity(mapped, wanted, dim=1)
            distance = distance + self.cosine_weight * (1 - cosines.mean())
        if self.similarity_weight and len(embeddings) > 1:
            first, second = torch.triu_indices(
                len(wanted), len(wanted), offset=1, device=wanted.device
            )
            own, theirs = (F.normalize(one, dim=1) for one in (embeddings, wanted))
            own, theirs = (own @ own.T)[first, second], (theirs @ theirs.T)[first, second]
            distance = distance + self.similarity_weight * F.mse_loss(own, theirs)
        return distance
