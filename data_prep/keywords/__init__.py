"""Keyword corpora: checked clips, splits by speaker, and other speech without keywords."""
