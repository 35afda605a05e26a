"""What the sequence models for keyword spotting share: embedding, blocks, mean over the clip's frames, classifier."""

import torch
from torch import nn

from modules.fidelity import check_fidelity
from modules.kws.embedding import CHANNELS, ConvolutionEmbedding
from modules.kws.features import KINDS
from modules.ssm.checks import check_lengths
from modules.ssm.masking import keep_valid, valid_frames


class SequenceSpotter(nn.Module):
    """The frame of a keyword network; a subclass fills ``self.blocks`` and says how they run in ``mix``.

    Arguments
    ---------
    n_classes : int
    d_model : int
        Channels of the blocks.
    feature_dim : int
        Features a frame.
    kind : str
        ``mel`` puts :class:`modules.kws.embedding.ConvolutionEmbedding` before the blocks, which halves time;
        ``mfcc`` projects each frame by itself.
    dropout : float
        Before the blocks and the classifier; half of it within the classifier.
    causal : bool
        Make the embedding causal.
    fidelity : str
        ``corrected`` keeps padding out of everything; ``upstream`` only out of the mean, as published.

    Raises
    ------
    ValueError
        If an option is outside its range.
    """

    def __init__(self, n_classes, d_model, feature_dim, kind, dropout, causal, fidelity):
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
        if kind == "mel" and feature_dim < 4:
            raise ValueError(f"feature_dim must be 4 or more, it is pooled by 4; got {feature_dim}")
        if n_classes < 1:
            raise ValueError(f"n_classes must be 1 or more; got {n_classes}")
        self.fidelity = check_fidelity(fidelity)
        self.n_classes, self.d_model = n_classes, d_model
        self.feature_dim, self.kind = feature_dim, kind
        self.subsampling = 2 if kind == "mel" else 1
        width = feature_dim
        if kind == "mel":
            self.conv_embed = ConvolutionEmbedding(causal)
            width = CHANNELS * (feature_dim // 4)
        self.proj = nn.Sequential(
            nn.Linear(width, d_model), nn.LayerNorm(d_model), nn.SiLU(), nn.Dropout(dropout)
        )
        self.blocks = nn.ModuleList()
        self.pre_classifier_norm = nn.LayerNorm(d_model)
        # the published mel and mfcc networks number the classifier's layers differently
        first = nn.Dropout(dropout)
        self.classifier_dropout = nn.Identity() if kind == "mfcc" else first
        self.classifier = nn.Sequential(
            *([first] if kind == "mfcc" else []),
            nn.Linear(d_model, d_model // 2),
            nn.SiLU(),
            nn.Dropout(0.5 * dropout),
            nn.Linear(d_model // 2, n_classes),
        )

    def embedding_frames(self, lengths):
        """Frames of embedding (a tensor of counts) that so many frames of features give."""
        return self.conv_embed.frames(lengths) if self.kind == "mel" else lengths

    def context_frames(self, lengths):
        """Frames of embedding that read any of so many first frames (a tensor of counts) of features directly."""
        return (lengths + self.subsampling - 1) // self.subsampling

    def forward(self, features, lengths=None, context=None, window=None):
        """Classify clips, and on request every window of what precedes them.

        Arguments
        ---------
        features : torch.Tensor
            (batch, time, feature_dim).
        lengths : torch.Tensor, optional
            (batch,) integer frame counts; ``None`` if all clips fill the batch.
        context : torch.Tensor, optional
            (batch,) how many of these frames precede the clip itself: they are read, but not averaged. In a causal
            network the logits are then what :meth:`modules.kws.mamba.MambaKeywordSpotter.stream` gives at the
            last frame with a window of the others.
        window : int, optional
            Frames of embedding that a stream averages. With it, windows that lie in the context are classified too.

        Returns
        -------
        torch.Tensor or (torch.Tensor, torch.Tensor)
            (batch, n_classes), logits. With ``window`` also the logits (windows, n_classes) of all windows in the
            contexts of the batch, as a stream gives them.

        Raises
        ------
        ValueError
            If the features have another width, the counts do not fit them, or a window is given without a context.
        """
        x, lengths = self.embed(features, lengths)
        if context is not None:
            check_lengths(context, *features.shape[:2])
            context = self.context_frames(context.to(x.device))
        logits = self.classify(masked_mean(x, lengths, context))
        if window is None:
            return logits
        if context is None:
            raise ValueError("windows are classified in a context: give it too")
        return logits, self.classify(windows_of(x, context, window))

    def embed(self, features, lengths=None):
        """The embedding of each frame, as the mean over them is classified.

        Returns
        -------
        (torch.Tensor, torch.Tensor or None)
            (batch, time // subsampling, d_model), and their counts; takes what :meth:`forward` takes.
        """
        self.check_features(features)
        if features.shape[1] == 0:
            raise ValueError("features hold no frame: leave out clips without samples")
        check_lengths(lengths, *features.shape[:2])
        if lengths is not None:
            lengths = lengths.to(features.device)
        # without padding there is nothing to mask
        masked = self.fidelity == "corrected" and not is_full(lengths, features.shape[1])
        known = lengths if masked else None
        features = keep_valid(features, valid_frames(known, features.shape[1], features.device))
        if self.kind == "mel":
            features, _ = self.conv_embed(features, known)
        if lengths is not None:
            lengths = self.embedding_frames(lengths)
        known = lengths if masked else None
        return self.pre_classifier_norm(self.mix(self.proj(features), known)), lengths

    def classify(self, embedding):
        """Logits (..., n_classes) of mean embeddings (..., d_model)."""
        return self.classifier(self.classifier_dropout(embedding))

    def check_features(self, features):
        """Raise ``ValueError`` unless ``features`` are (batch, time, feature_dim)."""
        if features.dim() != 3 or features.shape[2] != self.feature_dim:
            raise ValueError(
                f"features must be (batch, time, {self.feature_dim}), as feature_dim says; "
                f"got {tuple(features.shape)}"
            )


def is_full(lengths, time):
    """Whether every item of the batch is ``time`` frames long, so that there is nothing to mask."""
    if lengths is None:
        return True
    # a compiler or exporter could not go on from a look at the lengths
    return not torch.compiler.is_compiling() and bool((lengths >= time).all())


def masked_mean(x, lengths=None, context=None):
    """The mean of ``x`` (batch, time, channels) over each item's first ``lengths`` frames, one at least.

    The first ``context`` (batch,) of these do not count, but for the last of all.

    Example
    -------
    >>> import torch
    >>> x = torch.tensor([[[1.0], [3.0], [8.0]]])
    >>> masked_mean(x, torch.tensor([2])).tolist(), masked_mean(x, None, torch.tensor([1])).tolist()
    ([[2.0]], [[5.5]])
    """
    if lengths is None and context is None:
        return x.mean(1)
    if lengths is None:
        lengths = torch.full(x.shape[:1], x.shape[1], device=x.device)
    counted = valid_frames(lengths, x.shape[1], x.device)
    if context is not None:
        context = torch.minimum(context, (lengths - 1).clamp(min=0))
        counted = counted & ~valid_frames(context, x.shape[1], x.device)
        lengths = lengths - context
    return keep_valid(x, counted).sum(1) / lengths.clamp(min=1).unsqueeze(1)


def windows_of(x, context, window):
    """The means (windows, channels) over every window of ``window`` frames within each item's first ``context``.

    Example
    -------
    >>> import torch
    >>> x = torch.tensor([[[1.0], [3.0], [8.0]], [[0.0], [2.0], [4.0]]])
    >>> windows_of(x, torch.tensor([3, 2]), 2).flatten().tolist()
    [2.0, 5.5, 1.0]
    """
    longest = int(context.max()) if len(context) else 0
    if longest < window:
        return x.new_zeros(0, x.shape[2])
    means = x[:, :longest].unfold(1, window, 1).mean(-1)  # (batch, windows, channels)
    return means[valid_frames(context - window + 1, means.shape[1], x.device)]


def windowed_mean(x, recent, total, count):
    """The mean up to each frame of a chunk, over a window or since the stream began.

    Arguments
    ---------
    x : torch.Tensor
        (batch, time, channels), the chunk.
    recent : torch.Tensor or None
        (batch, window, channels), the frames before it, zeros before the start; ``None`` for a mean of all.
    total : torch.Tensor
        (batch, channels), the sum since the start.
    count : int
        Frames since the start.

    Returns
    -------
    (torch.Tensor, torch.Tensor or None, torch.Tensor, int)
        Means (batch, time, channels), and the three to carry on with.

    Example
    -------
    >>> import torch
    >>> x = torch.tensor([[[2.0], [4.0], [6.0]]])
    >>> windowed_mean(x, torch.zeros(1, 2, 1), torch.zeros(1, 1), 0)[0].flatten().tolist()
    [2.0, 3.0, 5.0]
    """
    time = x.shape[1]
    counts = count + torch.arange(1, time + 1, device=x.device)
    if recent is None:
        sums = total.unsqueeze(1) + x.cumsum(1)
        return sums / counts[:, None], None, sums[:, -1] if time else total, count + time
    window = recent.shape[1]
    both = torch.cat([recent, x], 1)
    sums = both.cumsum(1)
    means = (sums[:, window:] - sums[:, :time]) / counts.clamp(max=window)[:, None]
    return means, both[:, -window:], total, count + time
