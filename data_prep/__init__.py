"""Corpora: finding them, checking them and writing the CSV manifests that the recipes read.

Each module prepares one corpus or one kind of manifest; `data_prep.spoken` makes small corpora with
a speech synthesiser where no recorded speech is at hand. Nothing here depends on the models.
"""
