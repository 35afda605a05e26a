"""Keyword spotting: features of short clips and streams, and the networks that classify them.

Features are (batch, time, features). Every network maps features and their lengths to logits (batch, n_classes).
"""
