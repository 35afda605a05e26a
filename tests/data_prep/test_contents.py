"""A recording that is replaced under its name is noticed by every preparation, whatever its folder says."""

import os
import shutil

import numpy as np
import pytest
import soundfile

from data_prep.contents import changed_since, fingerprint, read_note, stamp
from data_prep.free_spoken_digits_prepare import prepare_free_spoken_digits
from data_prep.librispeech_prepare import prepare_librispeech
from data_prep.manifest import prepare_manifest
from data_prep.resample_speech import resample_speech
from data_prep.voxceleb_prepare import prepare_voxceleb
from data_prep.wsj0mix_prepare import prepare_wsj0mix
from mamba_speech.files import read_csv

LONG, SHORT = 2.0, 1.25


def write_sound(path, seconds, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(len(path.stem))
    soundfile.write(path, 0.1 * random.standard_normal(round(seconds * rate)), rate)


def make_librispeech(folder):
    chapter = folder / "dev-clean/1/2"
    for number in range(2):
        write_sound(chapter / f"1-2-000{number}.flac", LONG)
    (chapter / "1-2.trans.txt").write_text("1-2-0000 ONE\n1-2-0001 TWO\n")
    return chapter / "1-2-0001.flac"


def make_list(folder):
    write_sound(folder / "a.flac", LONG)
    (folder / "list.csv").write_text("path,text\na.flac,one\n")
    return folder / "a.flac"


def make_voices(folder):
    for speaker in range(6):
        for session in ("x", "y"):
            write_sound(folder / f"id1000{speaker}/{session}/1.wav", LONG)
    return folder / "id10003/y/1.wav"


def make_digits(folder):
    for speaker in ("ann", "ben", "cy"):
        for index in (0, 1, 10):
            write_sound(folder / f"recordings/3_{speaker}_{index}.wav", LONG)
    return folder / "recordings/3_ben_1.wav"


def make_mixtures(folder):
    for name in ("mix", "s1", "s2"):
        write_sound(folder / f"wav16k/min/tt/{name}/one.wav", LONG)
    return folder / "wav16k/min/tt/mix/one.wav"


# what makes a corpus and gives the recording to replace, and what prepares it
CORPORA = {
    "librispeech": (
        make_librispeech,
        lambda folder, save: prepare_librispeech(folder, save, te_splits=["dev-clean"]),
    ),
    "list": (
        make_list,
        lambda folder, save: prepare_manifest(folder / "list.csv", save, "train"),
    ),
    "voxceleb": (
        make_voices,
        lambda folder, save: prepare_voxceleb(folder, save, valid_speakers=2),
    ),
    "digits": (
        make_digits,
        lambda folder, save: prepare_free_spoken_digits(folder, save, "ann", clip_seconds=None),
    ),
    "mixtures": (
        make_mixtures,
        lambda folder, save: prepare_wsj0mix(
            folder, save, sample_rate=16000, splits=["test"], check_sum=False
        ),
    ),
}


def found_in(save):
    """Durations by recording in all manifests of a folder, and when each was written."""
    durations, times = {}, {}
    for path in save.glob("*.csv"):
        if not path.name.startswith("skipped"):
            times[path.name] = path.stat().st_mtime_ns
            for _, row in read_csv(path)[1]:
                durations[row.get("wav") or row["mix_wav"]] = float(row["duration"])
    return durations, times


def replace(path, seconds, keep_times):
    """Write another recording under a name, in a folder that keeps its time of change."""
    folder = path.parent.stat()
    before = path.stat()
    write_sound(path, seconds)
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(path.parent, ns=(folder.st_atime_ns, folder.st_mtime_ns))


@pytest.mark.parametrize("keep_times", [False, True], ids=["another time", "another size"])
@pytest.mark.parametrize("corpus", CORPORA)
def test_a_recording_replaced_under_its_name_is_prepared_anew(corpus, keep_times, tmp_path):
    make, prepare = CORPORA[corpus]
    recording = make(tmp_path / "data")
    prepare(tmp_path / "data", tmp_path / "save")
    durations, times = found_in(tmp_path / "save")
    assert durations[str(recording)] == LONG
    prepare(tmp_path / "data", tmp_path / "save")
    assert found_in(tmp_path / "save") == (durations, times), "nothing changed"
    # all the files of a mixture must be of one length
    for path in recording.parents[1].glob("*/one.wav") if corpus == "mixtures" else [recording]:
        replace(path, SHORT, keep_times)
    prepare(tmp_path / "data", tmp_path / "save")
    assert found_in(tmp_path / "save")[0][str(recording)] == SHORT


def test_a_keyword_replaced_under_its_name_is_prepared_anew(prepare_words, word_corpus):
    prepared = prepare_words(n_classes=["yes"])
    clips = sorted((word_corpus / "yes").iterdir())
    replace(clips[0], 0.5, keep_times=False)
    prepare_words(n_classes=["yes"])
    rows = [row for name in ("train", "valid", "test") for _, row in read_csv(prepared[name])[1]]
    assert {row["stop"] for row in rows if row["wav"] == str(clips[0])} == {"8000"}
    noise = word_corpus / "_background_noise_/hum.wav"
    replace(noise, 5.0, keep_times=False)
    prepare_words(n_classes=["yes"])
    rows = [row for _, row in read_csv(prepared["train"])[1]]
    assert max(int(row["stop"]) for row in rows if row["wav"] == str(noise)) <= 5 * 16000


def test_a_replaced_recording_is_resampled_again_and_no_other(tmp_path):
    for name in "abc":
        write_sound(tmp_path / f"in/{name}.wav", LONG)
    resample_speech(tmp_path / "in", tmp_path / "out")
    kept = (tmp_path / "out/a.wav").stat().st_mtime_ns
    replace(tmp_path / "in/b.wav", SHORT, keep_times=True)
    counts = resample_speech(tmp_path / "in", tmp_path / "out")
    assert counts == {"written": 1, "before": 2, "skipped": 0}
    assert soundfile.info(tmp_path / "out/b.wav").duration == SHORT
    assert (tmp_path / "out/a.wav").stat().st_mtime_ns == kept
    # a name that is not UTF-8 is noted like any other
    shutil.copy(tmp_path / "in/a.wav", os.fsencode(tmp_path / "in") + b"/caf\xe9.wav")
    assert resample_speech(tmp_path / "in", tmp_path / "out")["written"] == 1
    assert resample_speech(tmp_path / "in", tmp_path / "out")["before"] == 4
    # a source that went bad leaves no old copy behind
    (tmp_path / "in/c.wav").write_bytes(b"no sound")
    assert resample_speech(tmp_path / "in", tmp_path / "out")["skipped"] == 1
    assert not (tmp_path / "out/c.wav").exists()


def test_a_link_counts_as_what_it_leads_to(tmp_path):
    write_sound(tmp_path / "real.wav", LONG)
    (tmp_path / "link.wav").symlink_to("real.wav")
    before, link = fingerprint([tmp_path / "link.wav"]), stamp(tmp_path / "link.wav")
    assert link == stamp(tmp_path / "real.wav")
    replace(tmp_path / "real.wav", SHORT, keep_times=False)
    assert fingerprint([tmp_path / "link.wav"]) != before
    (tmp_path / "real.wav").unlink()
    assert stamp(tmp_path / "link.wav") == ""


def test_a_name_that_is_not_utf8_has_a_fingerprint(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    missing = fingerprint([path])
    shutil.copy(__file__, path)
    assert fingerprint([path]) != missing


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_damaged_note_counts_as_none(tmp_path, text):
    (tmp_path / "sources.json").write_text(text)
    assert changed_since(read_note(tmp_path / "sources.json"), {"a": "1 2"}) == set()
