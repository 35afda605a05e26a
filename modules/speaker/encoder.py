"""Speaker encoder: a front-end, bidirectional Mamba blocks or Transformer layers, attention pooling, an embedding.

Source: the project document "Mamba Speaker Verification": wav2vec2-large-xlsr-53, partly fine-tuned, 3 BiMamba blocks,
attention pooling, 468 classes, 53 M trainable parameters, and 61 M with a Transformer. It gives no width and does not
say which layers learn. Our interpretation: the 4 highest layers learn, both encoders have 3 layers of width 512,
the blocks have ``expand=1``, the Transformer has a feed-forward width of 2048, embeddings have 192 channels.
That makes 53.90 M (1.7 % more) and 60.62 M (0.6 % less). Normalisation and dropout are our choice too.
"""

import torch
from speechbrain.lobes.models.transformer.Transformer import TransformerEncoder as _Transformer
from torch import nn
from torch.nn import functional as F

from modules.lengths import strided_frames
from modules.speaker.front_ends import check_samples
from modules.speaker.layers import LAYERS
from modules.speaker.pooling import AttentionPooling, CepstralStatistics
from modules.speaker.windows import check_crops
from modules.ssm import BiMamba, RMSNorm, scale_output_projections
from modules.ssm.masking import keep_valid, valid_frames


class BiMambaEncoder(nn.Module):
    """Pre-norm residual stack of :class:`modules.ssm.BiMamba` blocks.

    Arguments
    ---------
    d_model : int
        Channels in and out.
    n_layers : int
        Blocks.
    dropout : float
        Dropout of each block's output.
    **mamba_options
        Options of the blocks (``d_state``, ``expand``, ``d_conv``, ``dt_bc_norm``, ...).

    Example
    -------
    >>> import torch
    >>> BiMambaEncoder(16, n_layers=2)(torch.randn(2, 9, 16), torch.tensor([9, 4])).shape
    torch.Size([2, 9, 16])
    """

    def __init__(self, d_model, n_layers=3, dropout=0.0, **mamba_options):
        super().__init__()
        self.d_model = d_model
        self.norms = nn.ModuleList(RMSNorm(d_model) for _ in range(n_layers))
        self.blocks = nn.ModuleList(BiMamba(d_model, **mamba_options) for _ in range(n_layers))
        self.dropout = nn.Dropout(dropout)
        self.norm = RMSNorm(d_model)
        scale_output_projections(self, n_layers)

    def forward(self, x, lengths=None):
        """Encode ``x`` (batch, time, d_model) with frame counts (batch,); frames behind them give 0."""
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + self.dropout(block(norm(x), lengths))
        return keep_valid(self.norm(x), valid_frames(lengths, x.shape[1], x.device))


class TransformerEncoder(nn.Module):
    """SpeechBrain's pre-norm Transformer with rotary positions, the baseline of :class:`BiMambaEncoder`.

    Arguments
    ---------
    d_model : int
        Channels in and out.
    n_layers, n_heads : int
        Layers, and attention heads of each.
    d_ffn : int, optional
        Width within a feed-forward network; ``4 * d_model`` by default.
    dropout : float
        Dropout of attention weights, of feed-forward networks and of their outputs.

    Raises
    ------
    ValueError
        If a head's width, ``d_model / n_heads``, is no even integer.

    Example
    -------
    >>> import torch
    >>> TransformerEncoder(16, n_layers=2, n_heads=2)(torch.randn(2, 9, 16), torch.tensor([9, 4])).shape
    torch.Size([2, 9, 16])
    """

    def __init__(self, d_model, n_layers=3, n_heads=8, d_ffn=None, dropout=0.0):
        super().__init__()
        if d_model % (2 * n_heads):
            raise ValueError(
                f"d_model must be a multiple of 2 * n_heads = {2 * n_heads}, so that positions can rotate pairs "
                f"within a head; got {d_model}"
            )
        self.d_model = d_model
        self.layers = _Transformer(
            num_layers=n_layers,
            nhead=n_heads,
            d_ffn=4 * d_model if d_ffn is None else d_ffn,
            d_model=d_model,
            dropout=dropout,
            activation=nn.GELU,
            normalize_before=True,
            attention_type="RoPEMHA",
        )

    def forward(self, x, lengths=None):
        """Encode ``x`` (batch, time, d_model) with frame counts (batch,); frames behind them give 0."""
        valid = valid_frames(lengths, x.shape[1], x.device)
        x, _ = self.layers(
            keep_valid(x, valid), src_key_padding_mask=None if valid is None else ~valid
        )
        return keep_valid(x, valid)


class MixerEncoder(nn.Module):
    """Layers of students as an encoder of a fixed number of frames, such as SV-Mixer's.

    Arguments
    ---------
    d_model : int
        Channels in and out.
    n_layers : int
        Layers.
    n_frames : int
        Frames that each layer mixes: the frames of a training crop after subsampling.
    layer : str
        Kind of the layers, one of :data:`modules.speaker.layers.LAYERS`.
    **layer_options
        Options of the layers.

    Raises
    ------
    ValueError
        If the kind is unknown.

    Example
    -------
    >>> import torch
    >>> MixerEncoder(16, n_layers=2, n_frames=9)(torch.randn(2, 9, 16)).shape
    torch.Size([2, 9, 16])
    """

    def __init__(self, d_model, n_layers=5, n_frames=51, layer="sv_mixer", **layer_options):
        super().__init__()
        if layer not in LAYERS:
            raise ValueError(f"layer must be one of {', '.join(LAYERS)}; got {layer!r}")
        self.d_model, self.n_frames = d_model, n_frames
        self.layers = nn.ModuleList(
            LAYERS[layer](d_model, n_frames=n_frames, **layer_options) for _ in range(n_layers)
        )

    def forward(self, x, lengths=None):
        """Encode ``x`` (batch, n_frames, d_model); every utterance fills its row."""
        if lengths is None:
            lengths = torch.full(x.shape[:1], x.shape[1], device=x.device)
        for layer in self.layers:
            x = layer(x, lengths)
        return x


class SpeakerEncoder(nn.Module):
    """Waveforms to speaker embeddings: front-end, projection, encoder, pooling, embedding.

    Arguments
    ---------
    front_end : torch.nn.Module
        Features and frame counts from waveforms and sample counts, with ``output_size``, ``sample_rate`` and
        ``min_samples``: :class:`modules.speaker.front_ends.FilterbankFrontEnd` or
        :class:`modules.speaker.self_supervised.SelfSupervised`.
    encoder : torch.nn.Module
        Frames (batch, time, d_model) from frames and counts, with ``d_model``.
    embedding_size : int
        Channels of an embedding.
    pooling : torch.nn.Module, optional
        One vector from frames and counts, with ``output_size``; attention over frames by default.
    subsampling : int
        Frames that are joined into one before the encoder, a convolution of this kernel and stride.
    dropout : float
        Dropout of the projected frames and of the pooled vector.
    cepstral_statistics : int
        Cepstra whose mean and deviation over the utterance are added to the embedding, for filterbanks; 0 for none. See
        :class:`modules.speaker.pooling.CepstralStatistics`.
    crop_seconds : float, optional
        Length of every utterance, for an encoder of a fixed number of frames (``n_frames``).

    Raises
    ------
    ValueError
        If ``subsampling`` is below 1, crops have another number of frames than the encoder takes, there are more
        cepstra than features, or an utterance has fewer than ``min_samples`` samples or, with ``crop_seconds``, another
        length.

    Example
    -------
    >>> import torch
    >>> from modules.speaker.front_ends import FilterbankFrontEnd
    >>> model = SpeakerEncoder(FilterbankFrontEnd(), BiMambaEncoder(16, 1), embedding_size=8, subsampling=2)
    >>> model(torch.randn(2, 16000), torch.tensor([16000, 8000])).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        front_end,
        encoder,
        embedding_size=192,
        pooling=None,
        subsampling=1,
        dropout=0.0,
        cepstral_statistics=0,
        crop_seconds=None,
    ):
        super().__init__()
        if subsampling < 1:
            raise ValueError(f"subsampling must be 1 frame or more; got {subsampling}")
        self.embedding_size, self.subsampling = embedding_size, subsampling
        self.sample_rate = front_end.sample_rate
        # utterances of any length, if there is none
        self.crop_samples = _crop_samples(front_end, encoder, subsampling, crop_seconds)
        self.min_samples = self.crop_samples or front_end.min_samples
        self.front_end = front_end
        self.project = nn.Sequential(
            nn.Linear(subsampling * front_end.output_size, encoder.d_model),
            nn.LayerNorm(encoder.d_model),
            nn.Dropout(dropout),
        )
        self.encoder = encoder
        self.pooling = AttentionPooling(encoder.d_model) if pooling is None else pooling
        self.embed = nn.Sequential(
            nn.LayerNorm(self.pooling.output_size),
            nn.Dropout(dropout),
            nn.Linear(self.pooling.output_size, embedding_size),
        )
        self.statistics = None
        if cepstral_statistics:
            self.statistics = CepstralStatistics(
                front_end.output_size, cepstral_statistics, embedding_size, dropout
            )

    def forward(self, wavs, samples=None, augment=None):
        """Embed utterances.

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, samples) at ``sample_rate``; what stands behind an utterance's end does not matter.
        samples : torch.Tensor, optional
            (batch,) integer sample counts; ``None`` if all utterances fill the batch.
        augment : callable, optional
            Function of the features (batch, time, channels) and their counts (batch,) that changes the features, for
            training.

        Returns
        -------
        torch.Tensor
            (batch, embedding_size), not normalised.
        """
        samples = check_samples(wavs, samples, self.front_end.min_samples)
        check_crops(wavs, samples, self.crop_samples)
        x, lengths = self.front_end(wavs, samples)
        # of the features before augmentation, which would blank bands of them
        from_statistics = 0 if self.statistics is None else self.statistics(x, lengths)
        x = x if augment is None else augment(x, lengths)
        x, lengths = self._join(x, lengths)
        x = self.encoder(self.project(x), lengths)
        return self.embed(self.pooling(x, lengths)) + from_statistics

    def _join(self, x, lengths):
        """Every ``subsampling`` frames as one; zeros fill up an utterance's last."""
        step = self.subsampling
        if step == 1:
            return x, lengths
        x = F.pad(
            keep_valid(x, valid_frames(lengths, x.shape[1], x.device)),
            (0, 0, 0, -x.shape[1] % step),
        )
        return x.unflatten(1, (-1, step)).flatten(2), strided_frames(lengths, step)


def _crop_samples(front_end, encoder, subsampling, crop_seconds):
    """Samples of every utterance, or ``None`` if the encoder takes any length."""
    n_frames = getattr(encoder, "n_frames", None)
    if n_frames is None:
        return None
    if crop_seconds is None:
        raise ValueError("an encoder of a fixed number of frames needs crop_seconds")
    samples = round(crop_seconds * front_end.sample_rate)
    frames = int(strided_frames(front_end.frames(torch.tensor([samples])), subsampling))
    if frames != n_frames:
        raise ValueError(
            f"crops of {crop_seconds:g} s have {frames} frames after subsampling by {subsampling}, and the encoder "
            f"takes {n_frames}: set n_frames to {frames}"
        )
    return samples
