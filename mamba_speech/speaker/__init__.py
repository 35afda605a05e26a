"""Using a trained speaker model: embeddings, and whether two recordings are of one speaker."""
