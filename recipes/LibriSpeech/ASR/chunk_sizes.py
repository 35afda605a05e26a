"""Chunks of a streaming encoder in training: a draw for each batch, so that one model serves every latency."""

import random

from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig


def drawn_chunks(hparams, epoch, step):
    """The chunks of a training batch; None for the whole utterance.

    The draw depends on the seed, the epoch and the batch's number in it. So a resumed epoch draws what the epoch would
    have drawn, and all processes of a run draw alike.

    Arguments
    ---------
    hparams : types.SimpleNamespace
        Options of the run: ``chunk_sizes`` and ``full_context_share``, which a recipe without streaming lacks,
        ``seed``, ``causal`` of a ConMamba, and ``left_contexts`` of a Conformer.
    epoch, step : int

    Returns
    -------
    speechbrain.utils.dynamic_chunk_training.DynChunkTrainConfig or None
    """
    sizes = getattr(hparams, "chunk_sizes", None)
    if not sizes or getattr(hparams, "causal", False):
        return None
    draw = random.Random(f"{hparams.seed} {epoch} {step}")
    if draw.random() < hparams.full_context_share:
        return None
    size, contexts = draw.choice(sizes), getattr(hparams, "left_contexts", None)
    return DynChunkTrainConfig(size, draw.choice(contexts) if contexts else None)
