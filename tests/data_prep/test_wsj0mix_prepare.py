"""Manifests of mixtures: what is in them, and what each fault of a set is answered with."""

import csv
import logging
import shutil

import numpy as np
import pytest
import soundfile

from data_prep.wsj0mix_prepare import SPLITS, prepare_wsj0mix

RATE = 8000
LENGTH = 800


def draw_sources(seed, num_spks=2):
    """Random sources whose sum stays within full scale, shape (speakers, samples)."""
    return np.random.default_rng(seed).uniform(-0.3, 0.3, (num_spks, LENGTH))


def write(path, waveform, rate=RATE, subtype="PCM_16"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, rate, subtype)


def write_mixture(split, name, sources, rate=RATE, subtype="PCM_16"):
    """Write a mixture as WSJ0-2mix has it: each file is rounded by itself."""
    write(split / "mix" / f"{name}.wav", sources.sum(axis=0), rate, subtype)
    for number, source in enumerate(sources, start=1):
        write(split / f"s{number}" / f"{name}.wav", source, rate, subtype)


@pytest.fixture
def make_tree(tmp_path):
    """A function that makes a tree with three mixtures a split."""

    def make(num_spks=2, inside="wav8k/min", rate=RATE, splits=("tr", "cv", "tt")):
        root = tmp_path / "mixtures"
        for number, split in enumerate(splits):
            for index in range(3):
                sources = draw_sources([number, index], num_spks)
                write_mixture(root / inside / split, f"{split}_{index}", sources, rate)
        return root

    return make


def read_rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("num_spks", [2, 3])
def test_a_row_names_the_files_of_one_mixture(make_tree, tmp_path, num_spks):
    prepared = prepare_wsj0mix(make_tree(num_spks), tmp_path / "out", num_spks=num_spks)
    assert list(prepared) == ["train", "valid", "test"]
    for split, path in prepared.items():
        rows = read_rows(path)
        names = ["mix_wav", *(f"s{number}_wav" for number in range(1, num_spks + 1))]
        assert list(rows[0]) == ["ID", "duration", *names]
        assert [row["ID"] for row in rows] == [f"{SPLITS[split]}_{index}" for index in range(3)]
        for row in rows:
            waveforms = [soundfile.read(row[name])[0] for name in names]
            assert float(row["duration"]) == LENGTH / RATE == len(waveforms[0]) / RATE
            assert np.abs(waveforms[0] - sum(waveforms[1:])).max() < 1e-4


@pytest.mark.parametrize("inside", ["wav8k/min", "2speakers/wav8k/min", "."])
def test_every_documented_place_of_the_tree_is_found(make_tree, tmp_path, inside):
    root = make_tree(inside=inside)
    rows = read_rows(prepare_wsj0mix(root, tmp_path / "out")["test"])
    assert rows[0]["mix_wav"] == str((root / inside / "tt/mix/tt_0.wav").absolute())


def spoil_missing(split):
    (split / "s2/tr_1.wav").unlink()


def spoil_length(split):
    write(split / "s1/tr_1.wav", draw_sources(0)[0, :-1])


def spoil_source_rate(split):
    write(split / "s2/tr_1.wav", draw_sources(0)[1], 16000)


def spoil_silence(split):
    write(split / "s2/tr_1.wav", np.zeros(LENGTH))


def spoil_numbers(split):
    sources = draw_sources(0)
    sources[1, 5] = np.nan
    write_mixture(split, "tr_1", sources, subtype="FLOAT")


def spoil_channels(split):
    write(split / "mix/tr_1.wav", draw_sources(0).T)


def spoil_emptiness(split):
    write(split / "s1/tr_1.wav", np.zeros(0))


def spoil_header(split):
    (split / "mix/tr_1.wav").write_bytes(b"no sound")


def spoil_scale(split):
    write(split / "mix/tr_1.wav", 0.99 * draw_sources([0, 1]).sum(axis=0))


def spoil_a_sample(split):
    mix = draw_sources([0, 1]).sum(axis=0)
    mix[7] += 5 / 32768
    write(split / "mix/tr_1.wav", mix)


def spoil_order(split):
    shutil.copy(split / "mix/tr_0.wav", split / "mix/tr_1.wav")


def spoil_name(split):
    write(split / "mix/tr_1.flac", draw_sources([0, 1]).sum(axis=0))


FAULTS = {
    spoil_missing: "s2 is missing",
    spoil_length: "s1 is not as long as the mixture",
    spoil_source_rate: "s2 is at 16000 Hz, the mixture at 8000",
    spoil_silence: "s2 is silent",
    spoil_numbers: "mix has values that are not finite",
    spoil_channels: "mix has 2 channels",
    spoil_emptiness: "s1 has no samples",
    spoil_header: "mix is unreadable",
    spoil_scale: "the mixture is not the sum of its sources",
    spoil_a_sample: "the mixture is not the sum of its sources",
    spoil_order: "the mixture is not the sum of its sources",
    spoil_name: "duplicate id",
}


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
def test_a_bad_mixture_is_left_out_counted_and_listed(make_tree, tmp_path, caplog, spoil):
    root = make_tree()
    spoil(root / "wav8k/min/tr")
    with caplog.at_level(logging.WARNING):
        prepared = prepare_wsj0mix(root, tmp_path / "out")
    assert [row["ID"] for row in read_rows(prepared["train"])] == ["tr_0", "tr_2"]
    skipped = read_rows(tmp_path / "out/skipped_train.csv")
    assert [(row["id"], row["reason"]) for row in skipped] == [("tr_1", FAULTS[spoil])]
    assert "1 of 3 mixtures of train are left out" in caplog.text
    assert not (tmp_path / "out/skipped_valid.csv").exists()


@pytest.mark.parametrize("to_integer", [np.round, np.floor, np.trunc])
def test_rounding_of_each_file_to_16_bit_is_tolerated(make_tree, tmp_path, to_integer):
    root = make_tree(num_spks=3)
    for index in range(3):
        sources = draw_sources(index, 3)
        samples = [to_integer(32768 * one) / 32768 for one in (sources.sum(axis=0), *sources)]
        for name, waveform in zip(("mix", "s1", "s2", "s3"), samples, strict=True):
            write(root / f"wav8k/min/tr/{name}/tr_{index}.wav", waveform, subtype="FLOAT")
    assert len(read_rows(prepare_wsj0mix(root, tmp_path / "out", 3)["train"])) == 3


def test_a_set_with_noise_says_how_to_prepare_it(make_tree, tmp_path):
    root = make_tree()
    for index in range(3):
        mix = draw_sources([0, index]).sum(axis=0) + 0.05 * draw_sources(9)[0]
        write(root / f"wav8k/min/tr/mix/tr_{index}.wav", mix)
    with pytest.raises(ValueError, match="set check_sum to False"):
        prepare_wsj0mix(root, tmp_path / "out")
    assert len(read_rows(prepare_wsj0mix(root, tmp_path / "out", check_sum=False)["train"])) == 3


def test_another_sample_rate_names_the_file_and_the_option(make_tree, tmp_path):
    root = make_tree(inside=".", rate=16000)
    with pytest.raises(ValueError, match=r"tr_\d.wav is at 16000 Hz.*--sample_rate 16000"):
        prepare_wsj0mix(root, tmp_path / "out")
    assert not (tmp_path / "out/train.csv").exists()
    assert prepare_wsj0mix(root, tmp_path / "out", sample_rate=16000)["train"].is_file()


def test_a_test_set_alone_can_be_prepared_alone(make_tree, tmp_path):
    root = make_tree(splits=("tt",))
    with pytest.raises(FileNotFoundError, match="tr.*option splits"):
        prepare_wsj0mix(root, tmp_path / "out")
    prepared = prepare_wsj0mix(root, tmp_path / "out", splits=["test"])
    assert list(prepared) == ["test"] and len(read_rows(prepared["test"])) == 3


def test_missing_and_empty_folders_are_named(make_tree, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        prepare_wsj0mix(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="not laid out like WSJ0-2mix"):
        prepare_wsj0mix(tmp_path, tmp_path / "out")
    root = make_tree()
    with pytest.raises(FileNotFoundError, match="s3; num_spks is 3"):
        prepare_wsj0mix(root, tmp_path / "out", num_spks=3)
    shutil.rmtree(root / "wav8k/min/cv/mix")
    (root / "wav8k/min/cv/mix").mkdir()
    with pytest.raises(ValueError, match="no .wav .*cv/mix"):
        prepare_wsj0mix(root, tmp_path / "out")


def test_three_speakers_are_not_prepared_as_two(make_tree, tmp_path):
    with pytest.raises(ValueError, match="has s3 too; set num_spks to 3"):
        prepare_wsj0mix(make_tree(num_spks=3), tmp_path / "out")


@pytest.mark.parametrize(
    "options",
    [{"num_spks": 4}, {"mode": "mean"}, {"sample_rate": 0}, {"splits": ["dev"]}, {"splits": []}],
)
def test_options_out_of_range_are_refused_by_name(tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        prepare_wsj0mix(tmp_path, tmp_path / "out", **options)


def test_a_second_run_reads_nothing_until_a_file_comes_or_changes(make_tree, tmp_path):
    root = make_tree()
    prepared = prepare_wsj0mix(root, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in prepared.values()}
    prepare_wsj0mix(root, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in prepared.values()} == before
    spoil_silence(root / "wav8k/min/tr")
    prepare_wsj0mix(root, tmp_path / "out")
    assert [row["ID"] for row in read_rows(prepared["train"])] == ["tr_0", "tr_2"]
    write_mixture(root / "wav8k/min/tr", "tr_3", draw_sources(7))
    prepare_wsj0mix(root, tmp_path / "out")
    assert [row["ID"] for row in read_rows(prepared["train"])] == ["tr_0", "tr_2", "tr_3"]
    assert not [path.name for path in (tmp_path / "out").iterdir() if "partial" in path.name]


def test_a_run_that_left_something_out_is_repeated(make_tree, tmp_path):
    root = make_tree()
    spoil_silence(root / "wav8k/min/tr")
    prepare_wsj0mix(root, tmp_path / "out")
    write(root / "wav8k/min/tr/s2/tr_1.wav", draw_sources([0, 1])[1])
    assert len(read_rows(prepare_wsj0mix(root, tmp_path / "out")["train"])) == 3
    assert not (tmp_path / "out/skipped_train.csv").exists()
