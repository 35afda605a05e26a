"""Lists from another machine: the recordings that they mean are found, and what is missing is skipped by name."""

import csv
import unicodedata

import numpy as np
import pytest
import soundfile

from data_prep.mixtures import Settings, build_mixtures, find_lists, read_list, write_list
from data_prep.mixtures.__main__ import main
from data_prep.mixtures.loading import UnusableError, load_files
from data_prep.mixtures.locate import Locator
from mamba_speech.audio import AudioError, load_audio
from tests.support.mixing import one_list, read_set, same, write_noise

RATE = 16000
NAMES = ("si_tr_s/011/011a0101", "si_tr_s/022/022b0202", "si_dt_05/050/050a0501")
LINES = [
    "wsj0/si_tr_s/011/011a0101.wav 1.2345 wsj0/si_tr_s/022/022b0202.wav -1.2345",
    "wsj0/si_dt_05/050/050a0501.wav 0.5 wsj0/si_tr_s/011/011a0101.wav -0.5",
]
IDS = ["011a0101_1.2345_022b0202_-1.2345", "050a0501_0.5_011a0101_-0.5"]


def write_wsj0(folder, place="{}.wav", **options):
    """The same three recordings under names of any form."""
    for number, name in enumerate(NAMES):
        path = folder / place.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(-3000, 3000, RATE // 2, dtype=np.int16)
        soundfile.write(path, noise, RATE, **options)
    return folder


def upper(folder):
    """Upper case throughout, with SPHERE files, as on WSJ0's discs."""
    for number, name in enumerate(NAMES):
        path = folder / f"DISC1/WSJ0/{name}.wv1".upper()
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(-3000, 3000, RATE // 2, dtype=np.int16)
        soundfile.write(path, noise, RATE, format="NIST", subtype="PCM_16")
        # the other microphone of the same sentence
        soundfile.write(path.with_suffix(".WV2"), -noise, RATE, format="NIST", subtype="PCM_16")
    return folder


def flat(folder):
    write_wsj0(folder / "tree")
    for name in NAMES:
        (folder / "tree" / f"{name}.wav").rename(folder / f"{name.split('/')[-1]}.wav")
    return folder


DISKS = {
    "as listed": lambda folder: write_wsj0(folder, "wsj0/{}.wav"),
    "without wsj0": write_wsj0,
    "flac": lambda folder: write_wsj0(folder, "wsj0/{}.flac"),
    "sph2pipe": lambda folder: write_wsj0(folder, "{}.wv1.wav"),
    "discs": upper,
    "flat": flat,
    "deeper": lambda folder: write_wsj0(folder, "LDC93S6B/11-1.1/wsj0/{}.WAV", format="WAV"),
}
FORMS = {
    "official": lambda line: line,
    "upper case": str.upper,
    "backslashes": lambda line: line.replace("/", "\\"),
    "drive": lambda line: line.replace("wsj0/", "D:\\corpora\\wsj0\\").replace("/", "\\"),
    "absolute": lambda line: line.replace("wsj0/", "/home/some body/corpora/wsj0/"),
    "sphere": lambda line: line.replace(".wav", ".wv1"),
    "mixture names": lambda line: IDS[LINES.index(line)],
}


def write_official(folder, lines=LINES, name="mix_2_spk_tr.txt"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def mix(tmp_path, name, disk, lists):
    """The samples of a set that the command makes at 8 kHz."""
    options = ["--wsj0", str(disk), "--lists", str(lists), "--jobs", "1"]
    main([str(tmp_path / name), *options])
    return read_set(tmp_path / name / "wav8k/min/tr")


@pytest.mark.parametrize(
    ("disk", "form"),
    [(one, "official") for one in DISKS]
    + [("as listed", one) for one in FORMS]
    + [("discs", one) for one in FORMS],
)
def test_lists_and_discs_of_any_form_give_the_same_mixtures(tmp_path, disk, form):
    wanted = mix(
        tmp_path,
        "wanted",
        write_wsj0(tmp_path / "usual", "wsj0/{}.wav"),
        write_official(tmp_path / "l"),
    )
    assert {name.split("/")[-1] for name in wanted} == {f"{one}.wav" for one in IDS}
    lists = write_official(tmp_path / "lists", [FORMS[form](line) for line in LINES])
    found = mix(tmp_path, "found", DISKS[disk](tmp_path / "disk"), lists)
    # an id is written as the list writes the names
    assert same({name.lower(): one for name, one in found.items()}, wanted)


def test_one_missing_recording_costs_its_mixtures_and_is_named(tmp_path):
    disk = write_wsj0(tmp_path / "disk", "wsj0/{}.wav")
    (disk / "wsj0/si_dt_05/050/050a0501.wav").unlink()
    made = mix(tmp_path, "out", disk, write_official(tmp_path / "lists"))
    assert set(made) == {f"{name}/{IDS[0]}.wav" for name in ("mix", "s1", "s2")}
    with open(tmp_path / "out/wav8k/min/skipped_tr.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["id"] == IDS[1] and "050a0501.wav: no such file" in row["reason"]
    # the missing recording is put where it was missed
    write_wsj0(disk, "{}.flac")
    assert len(mix(tmp_path, "out", disk, tmp_path / "lists")) == 6
    assert not (tmp_path / "out/wav8k/min/skipped_tr.csv").exists()


def test_speech_for_dynamic_mixing_is_found_in_the_same_way(tmp_path):
    disk = upper(tmp_path / "disk")
    next(disk.rglob("022B0202.WV1")).unlink()
    options = [
        "--wsj0",
        str(disk),
        "--lists",
        str(write_official(tmp_path / "lists")),
        "--jobs",
        "1",
    ]
    main([str(tmp_path / "out"), *options, "--speech_for_dynamic_mixing"])
    written = sorted((tmp_path / "out/wav8k/speech").rglob("*.wav"))
    assert [path.parent.name for path in written] == ["011", "050"]
    assert "022b0202" in (tmp_path / "out/wav8k/skipped_speech.csv").read_text()


def test_shortened_sphere_is_called_so_by_every_reader(tmp_path):
    path = tmp_path / "011a0101.wv1"
    header = b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n"
    path.write_bytes(header.ljust(1024) + b"ajkg" + bytes(99))
    with pytest.raises(UnusableError, match="compressed by shorten.*sph2pipe"):
        load_files([path.name], tmp_path)
    with pytest.raises(AudioError, match="011a0101.wv1: .*compressed by shorten.*sph2pipe"):
        load_audio(path, RATE)


@pytest.mark.parametrize("kind", ["NFC", "NFD"])
def test_accents_of_either_form_are_one_name(tmp_path, kind):
    other = {"NFC": "NFD", "NFD": "NFC"}[kind]
    for speaker in ("josé", "zoé"):
        write_noise(tmp_path / "speech" / unicodedata.normalize(kind, speaker) / "1.wav")
    names = [unicodedata.normalize(other, f"{speaker}/1.wav") for speaker in ("josé", "zoé")]
    build_mixtures(tmp_path / "out", one_list(*names), Settings(str(tmp_path / "speech")), 1, False)
    assert len(read_set(tmp_path / "out/wav8k/min/tr")) == 3


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("train/anna/1.wav", "test/anna/1.wav"),
        ("anna/1.wav", "ben/1.wav"),
        ("si_tr_s/011/011a0101.wav", "si_tr_s/012/011a0101.wav"),
        ("si_tr_s/011/011a0101.wv1", "si_tr_s/011/011a0101.wv2"),
        ("si_tr_s/011/011a0101.wav", "si_tr_s/011/011a0101.wv2.wav"),
    ],
)
def test_a_recording_of_another_place_or_microphone_is_not_taken_for_it(tmp_path, listed, there):
    write_noise(tmp_path / there.replace("wv2", "wav"))
    (tmp_path / there.replace("wv2", "wav")).rename(tmp_path / there)
    found, fault = Locator(tmp_path).find(listed)
    assert found is None and listed in fault


def test_two_files_that_may_be_meant_are_both_named(tmp_path):
    write_noise(tmp_path / "one/011/011a0101.wav", 0.5)
    write_noise(tmp_path / "two/011/011a0101.wav", 0.6)
    found, fault = Locator(tmp_path).find("wsj0/011/011a0101.wav")
    assert found is None and "one/011" in fault and "two/011" in fault


def test_official_lists_are_found_under_their_names_in_any_case(tmp_path):
    names = {
        "tr": "MIX_2_SPK_TR.TXT",
        "cv": "mix_2_spk_min_cv_mix",
        "tt": "mix_2_spk_max_tt",
    }
    for split, name in names.items():
        write_official(tmp_path / "lists", LINES if split != "cv" else IDS, name)
    found = find_lists([str(tmp_path / "lists")])
    assert {split: path.name for split, path in found.items()} == names
    for path in found.values():
        mixtures = read_list(path)
        assert [one.id for one in mixtures] == IDS
        assert [one.speakers for one in mixtures] == [("011", "022"), ("050", "011")]


def test_a_table_is_read_as_one_whatever_its_ending(tmp_path):
    write_list(tmp_path / "tr.csv", one_list("a/0.wav", "b/0.wav")["tr"])
    (tmp_path / "tr.csv").rename(tmp_path / "tr.txt")
    assert read_list(tmp_path / "tr.txt") == one_list("a/0.wav", "b/0.wav")["tr"]


@pytest.mark.parametrize(
    "line", ["a/1.wav 1 b/2.wav", "a/1.wav 1", "a/1.wav 1 b/2.wav loud", "1 2 3 4 5 6 7 8", "one"]
)
def test_a_line_of_another_form_is_named(tmp_path, line):
    lists = write_official(tmp_path, [LINES[0], line])
    with pytest.raises(ValueError, match="mix_2_spk_tr.txt, line 2: "):
        read_list(lists / "mix_2_spk_tr.txt")
