"""Whatever a recording is, every consumer makes of it what `docs/inputs.md` says, and goes on with the others."""

import numpy as np
import pytest
import soundfile

from tests.support.oddities import (
    consumers,
    formats,
    list_outcomes,
    lists,
    page,
    structured_lists,
    trees,
)
from tests.support.oddities.folder import ODD, spoken
from tests.support.oddities.inputs import CONSUMERS, EXACT
from tests.support.oddities.verdict import disagreement

RARE = {f"{form} files" for form in ("MP3", *formats.SOUND_FILES)} - {"FLAC files", "OGG files"}
# inputs that every run of the tests tries: the first of each group, and what people meet most
QUICK = {
    odd.name
    for odd, before in zip(ODD, (None, *ODD), strict=False)
    if before is not None and odd.group != before.group and odd.group not in RARE
}
QUICK |= {
    "MP3 of variable bit rate",
    "Opus in WebM, as browsers record",
    "16,001 Hz",
    "768,000 Hz",
    "WAV with data size 0, of a recorder that was killed",
    "FLAC of unknown length, from a pipe",
    "half of MP3 MPEG_LAYER_III",
    "half of WAV PCM_16",
    "stereo with the right side inverted",
    "stereo with the left side silent",
    "floats at the scale of 16-bit integers",
    "0 bytes",
    "WAV without samples",
    "a byte that is not UTF-8",
    "a newline",
    "a pipe (FIFO)",
}


QUICK_TREES = {
    "a linked sub-folder",
    "links in a circle",
    "a pipe",
    "names that collide without their endings",
}
LISTS = (*lists.ODD, *structured_lists.ODD)


def cases(consumers=CONSUMERS):
    """Inputs and consumers, each marked by how often it is tried."""
    for odd in ODD:
        for consumer in consumers:
            marks = [] if odd.name in QUICK else [pytest.mark.exhaustive]
            yield pytest.param(odd, consumer, id=f"{consumer}-{odd.name}", marks=marks)


def list_cases():
    """Lists, each marked by how often a command gets it."""
    for odd in LISTS:
        quick = odd.name in ("a cell too few", "segments", "an empty list")
        yield pytest.param(odd, id=odd.name, marks=() if quick else pytest.mark.exhaustive)


def tree_cases():
    """Folders, each marked by how often it is tried."""
    for odd in trees.ODD:
        marks = [] if odd.name in QUICK_TREES else [pytest.mark.exhaustive]
        yield pytest.param(odd, id=odd.name, marks=marks)


@pytest.mark.parametrize("odd, consumer", list(cases()))
def test_an_odd_recording_becomes_what_is_declared(odd, consumer, odd_folder, outcome, plain_name):
    found = outcome(consumer)
    problem = disagreement(odd, consumer, found[odd.name], found[plain_name], odd_folder[odd.name])
    assert problem is None, problem


@pytest.mark.parametrize("odd, _", list(cases(["reading"])))
def test_what_is_heard_in_an_odd_recording_is_the_plain_one(odd, _, odd_folder):
    if odd.likeness is None:
        return
    decibels = consumers.likeness(odd_folder[odd.name], spoken())
    assert decibels >= odd.likeness
    # a kind of samples that is better than declared belongs among the exact ones
    assert odd.likeness == EXACT or decibels < 300 or np.isinf(decibels)


@pytest.mark.parametrize("odd", LISTS, ids=lambda odd: odd.name)
def test_preparation_makes_of_an_odd_list_what_is_declared(odd, odd_lists, tmp_path):
    problem = list_outcomes.disagreement_of_preparation(odd, odd_lists[odd.name], tmp_path / "out")
    assert problem is None, problem


@pytest.mark.parametrize("use", ["transcribe", "separate"])
@pytest.mark.parametrize("odd", list(list_cases()))
def test_a_command_makes_of_an_odd_list_what_is_declared(odd, use, odd_lists, runs, tmp_path):
    problem = list_outcomes.disagreement_of_command(
        odd, odd_lists[odd.name], use, runs, tmp_path / "out"
    )
    assert problem is None, problem


@pytest.mark.parametrize("use", consumers.USES)
@pytest.mark.parametrize("odd", list(tree_cases()))
def test_a_command_finds_in_an_odd_folder_what_is_declared(
    odd, use, odd_trees, runs, tmp_path, caplog
):
    found = consumers.through_folder(use, odd_trees[odd.name], runs, tmp_path / "out")
    assert found == (set(odd.found), set(odd.broken), bool(odd.refused))
    passed = [one.getMessage() for one in caplog.records if "passed over" in one.getMessage()]
    assert len(passed) == bool(odd.passed), passed
    assert all(odd.passed in one for one in passed), passed


def test_the_page_of_inputs_says_what_is_declared_here():
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.new_page(text) == text, (
        "python -m tests.support.oddities.page writes the tables anew"
    )


def test_every_format_and_kind_of_samples_that_libsndfile_writes_is_tried(tmp_path):
    tried = {form: set(subtypes.split()) for form, (_, subtypes) in formats.SOUND_FILES.items()}
    for form in soundfile.available_formats():
        # headerless files say nothing of themselves; SD2 needs a file of a second name
        if form in ("RAW", "SD2", "WVE"):
            continue
        for subtype in soundfile.available_subtypes(form):
            if subtype not in tried.get(form, ()):
                with pytest.raises(soundfile.SoundFileError):
                    soundfile.write(tmp_path / "a", spoken(), 16000, subtype, format=form)
