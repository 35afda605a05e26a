"""Speaker verification: front-ends, networks that turn an utterance into one embedding, and their losses.

Every model takes waveforms (batch, samples) and sample counts, and gives embeddings (batch, embedding_size).
"""
