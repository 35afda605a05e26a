"""Speech recognition: encoders and decoders with a CTC output, language models, and the search for a text."""
