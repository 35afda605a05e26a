"""The published convolutional baselines: MobileNetV2 on one channel, and a plain three-layer network.

They see a clip of fixed length, one second as published. Sources: Sandler et al., "MobileNetV2: Inverted
Residuals and Linear Bottlenecks" (arXiv 1801.04381, table 2), with torchvision's parameter names, and the
published code of "Mamba-based Network Design for Keyword Spotting" (Makarov and Levi, 2024).
"""

import torch
from torch import nn
from torch.nn import functional as F

from modules.fidelity import check_fidelity
from modules.ssm.checks import check_lengths
from modules.ssm.masking import keep_valid, valid_frames

# expansion, channels, repeats, stride: table 2 of the paper
_MOBILE_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class FixedLengthSpotter(nn.Module):
    """A network on spectrograms of a fixed number of frames: clips are cropped, or go on with zeros.

    Arguments
    ---------
    n_classes : int
    n_frames : int
        Frames of one clip, 63 for one second of the published features.
    fidelity : str
        ``corrected`` crops and pads each clip at its own end; ``upstream`` takes what it is given.

    Raises
    ------
    ValueError
        If an option is outside its range.
    """

    def __init__(self, n_classes, n_frames, fidelity):
        super().__init__()
        if n_classes < 1 or n_frames < 1:
            raise ValueError(
                f"n_classes and n_frames must be 1 or more; got {n_classes} and {n_frames}"
            )
        self.n_classes, self.n_frames = n_classes, n_frames
        self.fidelity = check_fidelity(fidelity)

    def forward(self, features, lengths=None):
        """Classify clips.

        Arguments
        ---------
        features : torch.Tensor
            (batch, time, features), or (batch, 1, features, time) as the published networks take them.
        lengths : torch.Tensor, optional
            (batch,) integer frame counts.

        Returns
        -------
        torch.Tensor
            (batch, n_classes), logits.

        Raises
        ------
        ValueError
            If the features have another shape, or the counts do not fit them.
        """
        if features.dim() == 4 and features.shape[1] == 1:
            features = features.squeeze(1).transpose(1, 2)
        if features.dim() != 3 or features.shape[1] == 0:
            raise ValueError(
                "features must be (batch, time, features) or (batch, 1, features, time), with a frame at "
                f"least; got {tuple(features.shape)}"
            )
        check_lengths(lengths, *features.shape[:2])
        if self.fidelity == "corrected":
            valid = valid_frames(lengths, features.shape[1], features.device)
            features = keep_valid(features, valid)
            features = F.pad(features, (0, 0, 0, self.n_frames - features.shape[1]))
        image = features.transpose(1, 2).unsqueeze(1)  # (batch, 1, features, time)
        return self.classify(self.features(image).mean((2, 3)))


class InvertedResidual(nn.Module):
    """A bottleneck of MobileNetV2: widen, filter each channel, narrow; on a residual where shapes allow.

    Arguments
    ---------
    channels, wider : int
        Channels in and out.
    expansion, stride : int

    Example
    -------
    >>> import torch
    >>> InvertedResidual(8, 16, expansion=6, stride=2)(torch.randn(1, 8, 10, 10)).shape
    torch.Size([1, 16, 5, 5])
    """

    def __init__(self, channels, wider, expansion, stride):
        super().__init__()
        inner = channels * expansion
        layers = [_convolution(channels, inner, kernel=1)] if expansion != 1 else []
        layers += [
            _convolution(inner, inner, stride=stride, groups=inner),
            nn.Conv2d(inner, wider, 1, bias=False),
            nn.BatchNorm2d(wider),
        ]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and channels == wider

    def forward(self, x):
        """Run the bottleneck over ``x`` (batch, channels, height, width)."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2KeywordSpotter(FixedLengthSpotter):
    """MobileNetV2 on a spectrogram as a picture of one channel.

    Arguments
    ---------
    n_classes : int
    alpha : float
        Factor on the channels, rounded to multiples of 8; 0.75 as published.
    dropout : float
        Before the classifier.
    n_frames, fidelity
        Of :class:`FixedLengthSpotter`.

    Example
    -------
    >>> import torch
    >>> model = MobileNetV2KeywordSpotter(n_classes=5, alpha=0.1).eval()
    >>> model(torch.randn(2, 63, 128)).shape, model(torch.randn(2, 1, 128, 63)).shape
    (torch.Size([2, 5]), torch.Size([2, 5]))
    """

    def __init__(self, n_classes=35, alpha=0.75, dropout=0.2, n_frames=63, fidelity="corrected"):
        super().__init__(n_classes, n_frames, fidelity)
        if alpha <= 0:
            raise ValueError(f"alpha must be positive; got {alpha}")
        channels = _multiple_of_8(32 * alpha)
        layers = [_convolution(1, channels, stride=2)]
        for expansion, base, repeats, stride in _MOBILE_STAGES:
            wider = _multiple_of_8(base * alpha)
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                layers.append(InvertedResidual(channels, wider, expansion, step))
                channels = wider
        last = _multiple_of_8(1280 * max(1.0, alpha))
        layers.append(_convolution(channels, last, kernel=1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, n_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.classifier[1].weight, std=0.01)
        nn.init.zeros_(self.classifier[1].bias)
        # the layout that CPUs convolve fastest in
        self.to(memory_format=torch.channels_last)

    def classify(self, pooled):
        """Logits of pooled channels (batch, channels)."""
        return self.classifier(pooled)


class KeywordCNN(FixedLengthSpotter):
    """Three convolutions with batch norm, ReLU and pooling, and one linear layer.

    Arguments
    ---------
    n_classes : int
    dropout : float
        Before the classifier.
    n_frames, fidelity
        Of :class:`FixedLengthSpotter`.

    Example
    -------
    >>> import torch
    >>> KeywordCNN(n_classes=5).eval()(torch.randn(2, 63, 40)).shape
    torch.Size([2, 5])
    """

    def __init__(self, n_classes=35, dropout=0.3, n_frames=63, fidelity="corrected"):
        super().__init__(n_classes, n_frames, fidelity)
        layers, channels = [], 1
        for wider, pool in ((32, (2, 1)), (64, (2, 2)), (128, None)):
            layers += [nn.Conv2d(channels, wider, 3, padding=1), nn.BatchNorm2d(wider), nn.ReLU()]
            if pool is not None:
                layers.append(nn.MaxPool2d(pool))  # (frequency, time)
            channels = wider
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, n_classes)
        self.to(memory_format=torch.channels_last)

    def classify(self, pooled):
        """Logits of pooled channels (batch, channels)."""
        return self.fc(self.dropout(pooled))


def _convolution(channels, wider, kernel=3, stride=1, groups=1):
    """Convolution, batch norm and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(channels, wider, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(wider),
        nn.ReLU6(),
    )


def _multiple_of_8(channels):
    """The multiple of 8 next to ``channels``, 8 at least and no more than a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
