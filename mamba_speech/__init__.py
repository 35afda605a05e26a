"""Using trained models: audio in, text out, from any working directory, and the command ``mamba-speech``."""
