"""The depthwise separable CNN (DS-CNN) for keyword spotting, on clips of any length.

Source: Zhang et al., "Hello Edge: Keyword Spotting on Microcontrollers" (arXiv 1711.07128), section 4.
Added are masks: a convolution reads zeros behind a clip's own end, and statistics and the mean are over its own frames.
"""

import torch
from torch import nn
from torch.nn import functional as F

from modules.fidelity import check_fidelity
from modules.kws.embedding import keep_columns, normalise_columns
from modules.kws.spotter import is_full
from modules.ssm.checks import check_lengths
from modules.ssm.masking import valid_frames

# frames and features of the first convolution's kernel
FIRST_KERNEL = (10, 4)


class MaskedConvolution(nn.Module):
    """A convolution of (batch, channels, time, features), batch norm and ReLU, over each clip's own frames.

    Frames behind a clip's end are zeros to the convolution. There is an output frame for every ``stride`` frames that
    have begun.

    Arguments
    ---------
    channels, wider : int
        Channels in and out.
    kernel, stride : (int, int)
        Along time and features.
    groups : int

    Example
    -------
    >>> import torch
    >>> x, lengths = MaskedConvolution(1, 8, (10, 4), (2, 1))(torch.randn(2, 1, 49, 10), torch.tensor([49, 20]))
    >>> x.shape, lengths.tolist()
    (torch.Size([2, 8, 25, 10]), [25, 10])
    """

    def __init__(self, channels, wider, kernel=(3, 3), stride=(1, 1), groups=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, wider, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(wider)
        self.stride = stride
        # before and behind, of features and of time: as many zeros as keep the size, one more behind an even kernel
        edges = [((size - 1) // 2, size // 2) for size in reversed(kernel)]
        self.edges = [zeros for pair in edges for zeros in pair]

    def forward(self, x, lengths=None):
        """Run it over ``x`` (batch, channels, time, features); returns that and the frame counts."""
        x = keep_columns(x, valid_frames(lengths, x.shape[2], x.device), time=2)
        x = self.conv(F.pad(x, self.edges))
        if lengths is not None:
            lengths = (lengths + self.stride[0] - 1) // self.stride[0]
        valid = valid_frames(lengths, x.shape[2], x.device)
        return F.relu(normalise_columns(self.norm, x, valid, time=2)), lengths


class DSCNNKeywordSpotter(nn.Module):
    """One convolution over time and features, depthwise separable ones, and a classifier of their mean.

    Arguments
    ---------
    n_classes : int
    d_model : int
        Channels: 276 in the published large size, 172 in the medium one.
    n_layers : int
        Depthwise separable convolutions: 5 and 4.
    feature_dim : int
        Features a frame; 10 MFCC as published.
    dropout : float
        Before the classifier.
    fidelity : str
        ``corrected`` keeps padding out; ``upstream`` only out of the mean.

    Raises
    ------
    ValueError
        If an option is outside its range.

    Example
    -------
    >>> import torch
    >>> model = DSCNNKeywordSpotter(n_classes=5, d_model=16, n_layers=2).eval()
    >>> model(torch.randn(2, 49, 10), torch.tensor([49, 30])).shape
    torch.Size([2, 5])
    """

    # frames that one frame before the mean stands for
    subsampling = 4

    def __init__(
        self,
        n_classes=35,
        d_model=276,
        n_layers=5,
        feature_dim=10,
        dropout=0.1,
        fidelity="corrected",
    ):
        super().__init__()
        if min(n_classes, d_model, n_layers, feature_dim) < 1:
            raise ValueError(
                "n_classes, d_model, n_layers and feature_dim must be 1 or more; got "
                f"{n_classes}, {d_model}, {n_layers} and {feature_dim}"
            )
        self.n_classes, self.feature_dim = n_classes, feature_dim
        self.fidelity = check_fidelity(fidelity)
        self.first = MaskedConvolution(1, d_model, FIRST_KERNEL, (2, 1))
        layers = []
        for index in range(n_layers):
            # the first halves time and features
            stride = (2, 2) if index == 0 else (1, 1)
            layers.append(MaskedConvolution(d_model, d_model, (3, 3), stride, groups=d_model))
            layers.append(MaskedConvolution(d_model, d_model, (1, 1)))
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(d_model, n_classes)
        # the layout that CPUs convolve fastest in
        self.to(memory_format=torch.channels_last)

    def forward(self, features, lengths=None):
        """Classify clips.

        Arguments
        ---------
        features : torch.Tensor
            (batch, time, feature_dim).
        lengths : torch.Tensor, optional
            (batch,) integer frame counts; ``None`` if all clips fill the batch.

        Returns
        -------
        torch.Tensor
            (batch, n_classes), logits.

        Raises
        ------
        ValueError
            If the features have another shape or no frame, or the counts do not fit them.
        """
        if features.dim() != 3 or features.shape[2] != self.feature_dim:
            raise ValueError(
                f"features must be (batch, time, {self.feature_dim}), as feature_dim says; "
                f"got {tuple(features.shape)}"
            )
        if features.shape[1] == 0:
            raise ValueError("features hold no frame: leave out clips without samples")
        check_lengths(lengths, *features.shape[:2])
        if lengths is not None:
            lengths = lengths.to(features.device).clamp(min=1)
        masked = self.fidelity == "corrected" and not is_full(lengths, features.shape[1])
        x, known = features.unsqueeze(1), lengths if masked else None
        for layer in (self.first, *self.layers):
            x, known = layer(x, known)
        if lengths is None:
            return self.classifier(self.dropout(x.mean((2, 3))))
        # (batch, channels, time, features): the mean over a clip's own frames
        frames = (lengths + self.subsampling - 1) // self.subsampling
        x = keep_columns(x, valid_frames(frames, x.shape[2], x.device), time=2)
        mean = x.mean(3).sum(2) / frames.unsqueeze(1)
        return self.classifier(self.dropout(mean))
