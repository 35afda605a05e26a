"""Corpora of many speakers: their recordings, the split of speakers, and trials for validation.

`recordings` finds the files of a million utterances in little memory, and `checker` opens them. `held_out` keeps
the speakers of trial lists away, `splits` chooses who trains and who validates, `pairs` draws validation trials,
and `manifests` writes them all. `data_prep.voxceleb_prepare` puts them together.
"""
