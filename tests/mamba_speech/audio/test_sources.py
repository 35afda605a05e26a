"""Files that other programs write: tags before and behind the sound, several files in one, names of formats."""

import os
import struct

import numpy as np
import pytest
import soundfile

from data_prep.inspection import FULL, HEADER, inspect
from mamba_speech.audio import AudioError, load_audio, media, open_audio
from mamba_speech.audio.headers import PatchedFile
from mamba_speech.audio.mp3 import CountedFile
from mamba_speech.blocks import AudioBlocks
from tests.support.odd_audio import RATE, cut, drop_xing, forget_flac_length, speech_like
from tests.support.odd_audio import write_format as write

ID3V1 = b"TAG" + bytes(125)


def id3(size):
    """A tag of so many zeros."""
    return b"ID3\4\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)


def surround(path, before=b"", after=b""):
    path.write_bytes(before + path.read_bytes() + after)


def read(path, rate=RATE):
    """Samples and kinds of warnings, which every way to read a file agrees on; and parts of it."""
    odd = []
    whole = load_audio(path, rate, warnings=odd).numpy()
    blocks = AudioBlocks(path, rate)
    assert np.array_equal(np.concatenate(list(blocks)), whole)
    kinds = [one.kind for one in odd]
    assert [one.kind for one in blocks.warnings] == kinds
    reason = "truncated audio" if "truncated" in kinds else None
    for verify in (FULL, HEADER):
        assert inspect(path, verify)[2] == reason
    for start, stop in ((0, 999), (20_000, 30_000), (len(whole) - 50, None)):
        part = load_audio(path, rate, start, stop).numpy()
        assert np.allclose(part, whole[start:stop], atol=1e-6)
    return whole, kinds


@pytest.mark.parametrize("before", [b"", id3(5000), id3(300) + id3(200)])
@pytest.mark.parametrize("after", [b"", ID3V1, bytes(5000)])
def test_tags_around_a_flac_change_nothing(before, after, tmp_path):
    path = write(tmp_path / "plain.flac", "flac", speech_like(4))
    plain = load_audio(path, RATE).numpy()
    surround(path, before, after)
    samples, kinds = read(path)
    assert kinds == [] and np.array_equal(samples, plain)


@pytest.mark.parametrize("known", [True, False])
def test_a_flac_behind_a_tag_is_judged_like_any_other(known, tmp_path):
    path = write(tmp_path / "cut.flac", "flac", speech_like(9))
    if not known:
        forget_flac_length(path)
    surround(path, id3(5000))
    cut(path)
    samples, kinds = read(path)
    assert kinds == ["truncated"] + ["unknown_length"] * (not known)
    assert 3 * RATE < len(samples) < 6 * RATE


@pytest.mark.parametrize("between", [b"", ID3V1, ID3V1 + id3(700)])
@pytest.mark.parametrize("told", [True, False])
def test_mp3_files_that_were_joined_are_read_to_the_end_of_the_last(told, between, tmp_path):
    path = write(tmp_path / "joined.mp3", "mp3", speech_like(4))
    one = load_audio(path, RATE).numpy()
    if not told:
        drop_xing(path)
    surround(path, after=between + path.read_bytes())
    samples, kinds = read(path)
    assert kinds == [] and 2 * len(one) <= len(samples) < 2 * len(one) + 6000
    # the second file sounds as the first
    level = np.sqrt(np.mean(samples[-4 * RATE :] ** 2))
    assert level == pytest.approx(np.sqrt(np.mean(one**2)), rel=0.1)


@pytest.mark.parametrize("told", [True, False])
def test_zeros_between_the_tag_and_the_frames_of_an_mp3_lose_nothing(told, tmp_path):
    path = write(tmp_path / "padded.mp3", "mp3", speech_like(4))
    if not told:
        drop_xing(path)
    plain = load_audio(path, RATE).numpy()
    surround(path, id3(300) + bytes(500), ID3V1)
    samples, kinds = read(path)
    assert kinds == [] and np.array_equal(samples, plain)


def test_what_lies_behind_the_frames_of_an_mp3_is_no_sound(tmp_path):
    path = write(tmp_path / "tagged.mp3", "mp3", speech_like(4))
    plain = load_audio(path, RATE).numpy()
    ape = b"APETAGEX" + struct.pack("<4I", 2000, 60, 1, 1 << 31) + bytes(1976)
    surround(path, after=ape + ID3V1)
    samples, kinds = read(path)
    assert kinds == [] and np.array_equal(samples, plain)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_all_streams_of_a_chained_ogg_are_read_or_the_file_counts_as_cut(
    subtype, tmp_path, monkeypatch
):
    paths = [tmp_path / "a.ogg", tmp_path / "b.ogg"]
    for seed, path in enumerate(paths):
        soundfile.write(path, speech_like(3, seed, 48000), 48000, subtype, format="OGG")
    surround(paths[0], after=paths[1].read_bytes())
    samples, kinds = read(paths[0], 48000)
    assert kinds == [] and len(samples) == pytest.approx(6 * 48000, abs=2000)
    monkeypatch.setattr(media, "has_decoder", lambda: False)
    samples, kinds = read(paths[0], 48000)
    assert kinds == ["truncated"] and len(samples) == 3 * 48000
    with open_audio(paths[0]) as audio:
        text = audio.warnings[0].text
    assert text.startswith(f"{paths[0]}: holds several streams") and "pip install av" in text


def test_a_chained_ogg_that_goes_on_at_another_rate_counts_as_cut(tmp_path):
    path, other = tmp_path / "a.ogg", tmp_path / "b.ogg"
    soundfile.write(path, speech_like(3), RATE, "VORBIS", format="OGG")
    soundfile.write(other, speech_like(3, 1, 44100), 44100, "VORBIS", format="OGG")
    surround(path, after=other.read_bytes())
    odd = []
    assert len(load_audio(path, RATE, warnings=odd)) >= 3 * RATE
    assert [one.kind for one in odd] == ["truncated"] and inspect(path)[2] == "truncated audio"


@pytest.mark.parametrize("missing", [0, 20_000])
def test_bw64_is_rf64_by_another_name(missing, tmp_path):
    path = write(tmp_path / "a.wav", "rf64", speech_like(4))
    content = bytearray(path.read_bytes())
    assert content[:4] == b"RF64"
    content[:4] = b"BW64"
    path.write_bytes(content[: len(content) - missing])
    samples, kinds = read(path)
    assert np.allclose(samples, speech_like(4)[: len(samples)], atol=1e-4)
    assert len(samples) == 4 * RATE - missing // 2
    assert kinds == ["truncated"] * bool(missing)


def test_a_format_without_places_to_go_to_is_no_truncation(tmp_path):
    path = tmp_path / "a.sds"
    soundfile.write(path, speech_like(4), RATE, "PCM_16")
    assert inspect(path, HEADER) == inspect(path) == (4 * RATE, RATE, None)


@pytest.mark.parametrize(
    "told, after, kind",
    [
        (0x7FFFFFFF, b"", "unknown_length"),
        (0x7FFFF000, b"", "unknown_length"),
        (None, b"LIST\4\0\0\0INFO", None),
    ],
)
def test_a_wav_of_more_bytes_than_its_size_tells_is_read_on(told, after, kind, tmp_path):
    # holes take no room on the disk
    path, size = tmp_path / "long.wav", 3_000_000_000
    with open(path, "wb") as file:
        file.write(b"RIFF" + bytes(4) + b"WAVEfmt ")
        file.write(struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16))
        file.write(b"data" + struct.pack("<I", told or size))
        file.seek(44 + size - 200)
        file.write(b"\0\x10" * 100 + after)
    with open_audio(path) as audio:
        assert audio.frames == size // 2
        assert [one.kind for one in audio.warnings] == [kind] * (kind is not None)
    assert load_audio(path, RATE, size // 2 - 100).tolist() == [0.125] * 100


@pytest.mark.parametrize("size", [5_000_000_000, 10_000_000_000])
def test_a_wav_whose_size_went_round_counts_as_cut(size, tmp_path):
    path = tmp_path / "long.wav"
    write(path, "wav")
    content = bytearray(path.read_bytes()[:44])
    content[40:44] = struct.pack("<I", size % 2**32)
    path.write_bytes(content)
    with open(path, "r+b") as file:
        file.truncate(44 + size)
    with open_audio(path) as audio:
        assert [one.kind for one in audio.warnings] == ["truncated"]
    assert inspect(path, HEADER)[2] == "truncated audio"


@pytest.mark.parametrize("name", ["wav", "aiff", "au", "w64", "caf"])
def test_a_file_cut_before_its_first_sample_holds_none_for_everybody(name, tmp_path):
    path = write(tmp_path / "a", name, np.zeros(RATE * 4, "float32"))
    place = path.read_bytes().rindex(bytes(8 * RATE))
    path.write_bytes(path.read_bytes()[:place])
    with pytest.raises(AudioError, match="holds no samples"):
        load_audio(path, RATE)
    for verify in (FULL, HEADER):
        assert inspect(path, verify)[2] == "no samples"


@pytest.mark.parametrize("size", [-1, -5000, -(1 << 62), (1 << 62) + 1, (1 << 63) - 1])
@pytest.mark.parametrize("part", [1.0, 0.6])
def test_a_caf_whose_header_leads_outside_the_file_is_an_error_that_names_it(size, part, tmp_path):
    path = write(tmp_path / "a.caf", "caf", speech_like(4))
    content = bytearray(path.read_bytes())
    place = content.index(b"free") + 4
    content[place : place + 8] = struct.pack(">q", size)
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(AudioError, match=f"^{path}: "):
        load_audio(path, RATE)
    assert inspect(path)[2] == inspect(path, HEADER)[2] is not None


def test_places_outside_a_file_are_its_ends(tmp_path):
    path = write(tmp_path / "a.mp3", "mp3", speech_like(4))
    size = path.stat().st_size
    files = PatchedFile(path, {}), PatchedFile(path, {}, 100), CountedFile(path, 0)
    for file, length in zip(files, (size, size - 100, size + len(files[2].frame)), strict=True):
        with file:
            assert file.seek(-5) == file.tell() == 0
            assert file.seek(10) == 10 and file.seek(-20, os.SEEK_CUR) == 0
            assert file.seek((1 << 63) - 1) == file.seek(0, os.SEEK_END) == length
            assert file.read(5) == b""
