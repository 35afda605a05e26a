"""Keyword spotting with a trained run: clips, and keywords in recordings and at the microphone."""
