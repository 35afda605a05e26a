"""Separation with a trained run: whole recordings, windows and streams, and published checkpoints."""
