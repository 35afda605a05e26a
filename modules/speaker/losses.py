"""Losses of training speakers as classes: additive angular margin with sub-centres, and plain softmax.

Sources: Xiang et al., "Margin matters" (arXiv 1906.07317), for the margin; Deng et al., "Sub-center ArcFace" (ECCV
2020), for sub-centres; the SV-Mixer paper, section on training, for the weighted impostors.
"""

import math

import torch
from speechbrain.nnet.losses import AdditiveAngularMargin
from torch import nn
from torch.nn import functional as F


class SpeakerClassifier(nn.Module):
    """Cosines to the centres of the training speakers, and their loss with an additive angular margin.

    While training, the angle to the target's centre grows by the margin. In evaluation mode there is neither margin
    nor weight.

    Arguments
    ---------
    embedding_size, n_speakers : int
        Channels of an embedding, and classes.
    sub_centres : int
        Centres of a class; the nearest one counts.
    margin : float
        Margin in radians; it may be set anew later.
    scale : float
        Factor of the cosines.
    hard_impostors : int
        Classes other than the target that weigh more for each embedding, those with the highest cosines.
    hard_weight : float
        Their weight in the softmax's sum; the others weigh 1.

    Raises
    ------
    ValueError
        If an option is out of its range.

    Example
    -------
    >>> import torch
    >>> classifier = SpeakerClassifier(8, n_speakers=5)
    >>> loss, logits = classifier(torch.randn(2, 8), torch.tensor([0, 3]))
    >>> loss.shape, logits.shape
    (torch.Size([]), torch.Size([2, 5]))
    """

    def __init__(
        self,
        embedding_size,
        n_speakers,
        sub_centres=1,
        margin=0.2,
        scale=30.0,
        hard_impostors=0,
        hard_weight=1.0,
    ):
        super().__init__()
        if sub_centres < 1 or not scale > 0:
            raise ValueError(
                f"sub_centres must be 1 or more and scale above 0; got {sub_centres} and {scale}"
            )
        if hard_impostors < 0 or hard_weight < 1:
            raise ValueError(
                "hard_impostors must be 0 or more and hard_weight 1 or more; got "
                f"{hard_impostors} and {hard_weight}"
            )
        # classes first: the rows of the first classes can be kept without the others
        self.centres = nn.Parameter(torch.empty(n_speakers, sub_centres, embedding_size))
        nn.init.xavier_normal_(self.centres.view(n_speakers * sub_centres, embedding_size))
        self.scale, self.margin = scale, margin
        self.hard_impostors, self.hard_weight = min(hard_impostors, n_speakers - 1), hard_weight

    @property
    def margin(self):
        """Margin in radians."""
        return self._penalty.margin

    @margin.setter
    def margin(self, value):
        if not 0 <= value < math.pi / 2:
            raise ValueError(f"margin must be from 0 to less than pi / 2; got {value}")
        self._penalty = AdditiveAngularMargin(margin=value, scale=self.scale)

    def cosines(self, embeddings):
        """Cosines (batch, classes) of embeddings (batch, embedding_size), in float32 or better."""
        with torch.autocast(embeddings.device.type, enabled=False):
            # no gradient of a silent embedding is so large that fp16 overflows
            unit = F.normalize(embeddings.to(self.centres.dtype), dim=-1, eps=1e-3)
            return torch.einsum("be,cke->bck", unit, F.normalize(self.centres, dim=-1)).amax(-1)

    def forward(self, embeddings, targets):
        """Classify embeddings.

        Arguments
        ---------
        embeddings : torch.Tensor
            (batch, embedding_size), of any length.
        targets : torch.Tensor
            (batch,) numbers of classes.

        Returns
        -------
        (torch.Tensor, torch.Tensor)
            The mean loss, and scaled cosines (batch, classes) without margin.
        """
        cosines = self.cosines(embeddings)
        logits = self.scale * cosines
        if not self.training:
            return F.cross_entropy(logits, targets), logits
        wanted = F.one_hot(targets, cosines.shape[1])
        penalised = self._penalty(cosines, wanted.to(cosines.dtype))
        if self.hard_impostors and self.hard_weight != 1:
            others = cosines.detach().masked_fill(wanted.bool(), -torch.inf)
            hard = others.topk(self.hard_impostors, dim=1).indices
            # a factor of an exponential is a term of its exponent
            extra = torch.zeros_like(penalised).scatter(1, hard, math.log(self.hard_weight))
            penalised = penalised + extra
        return F.cross_entropy(penalised, targets), logits


class SoftmaxClassifier(nn.Linear):
    """A linear layer with softmax and smoothed labels, as the published classification of 468 speakers has it.

    Arguments
    ---------
    embedding_size, n_speakers : int
        Channels of an embedding, and classes.
    label_smoothing : float
        Part of the target's probability that all classes share while training.

    Example
    -------
    >>> import torch
    >>> classifier = SoftmaxClassifier(8, n_speakers=5, label_smoothing=0.05)
    >>> loss, logits = classifier(torch.randn(2, 8), torch.tensor([0, 3]))
    >>> loss.shape, logits.shape
    (torch.Size([]), torch.Size([2, 5]))
    """

    def __init__(self, embedding_size, n_speakers, label_smoothing=0.0):
        super().__init__(embedding_size, n_speakers)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"label_smoothing must be from 0 to less than 1; got {label_smoothing}"
            )
        self.label_smoothing = label_smoothing

    def forward(self, embeddings, targets):
        """The mean loss and the logits (batch, classes) of embeddings (batch, embedding_size)."""
        logits = super().forward(embeddings)
        smoothing = self.label_smoothing if self.training else 0.0
        return F.cross_entropy(logits, targets, label_smoothing=smoothing), logits
