"""Files whose headers are wrong about their length: every reader reads what is there, with a warning."""

import struct

import numpy as np
import pytest
import soundfile

from mamba_speech.audio import AudioError, load_audio, open_audio
from mamba_speech.blocks import AudioBlocks
from tests.support.odd_audio import (
    LENGTHS,
    RATE,
    cut,
    drop_xing,
    edit,
    forget_flac_length,
    set_data_size,
    speech_like,
    write_format,
)


def read_everywhere(path):
    """Samples and kinds of warnings, which are the same for each way to read a file."""
    odd = []
    whole = load_audio(path, RATE, warnings=odd).numpy()
    blocks = AudioBlocks(path, RATE)
    assert np.array_equal(np.concatenate(list(blocks)), whole)
    assert list(blocks.warnings) == odd
    with open_audio(path) as audio:
        audio.check_end()
        assert {one.kind for one in audio.warnings} == {one.kind for one in odd}
    assert all(one.text.startswith(f"{path}: ") for one in odd)
    return whole, [one.kind for one in odd]


@pytest.mark.parametrize("name", LENGTHS)
def test_a_whole_file_has_no_warning(name, tmp_path):
    path = write_format(tmp_path / "whole", name)
    samples, kinds = read_everywhere(path)
    assert kinds == [] and len(samples) == 2 * RATE


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("name", LENGTHS)
def test_a_file_that_was_cut_off_is_truncated_in_every_format(name, part, tmp_path):
    # Ogg has pages of a second and more
    path = write_format(tmp_path / "cut", name, speech_like(10))
    whole = load_audio(path, RATE).numpy()
    cut(path, part)
    samples, kinds = read_everywhere(path)
    assert kinds == ["truncated"]
    assert 0.4 * part < len(samples) / len(whole) < part + 0.15
    # the last samples of a lossy format depend on what would follow
    assert np.allclose(samples[:-4000], whole[: len(samples)][:-4000], atol=1e-4)


@pytest.mark.parametrize("samples", [7777, 16000, 40001])
def test_what_can_be_read_of_a_cut_flac_does_not_depend_on_the_blocks(samples, tmp_path):
    path = write_format(tmp_path / "cut.flac", "flac", speech_like(9))
    cut(path)
    with open_audio(path) as audio:
        found = np.concatenate(list(audio.blocks(frames=samples)))
    whole = load_audio(path, RATE).numpy()
    assert np.array_equal(found[:, 0], whole) and len(whole) % 4096 == 0 and len(whole) > 4 * RATE


def test_damage_in_the_middle_of_a_flac_is_no_end(tmp_path):
    path = write_format(tmp_path / "damaged.flac", "flac", speech_like(9))
    middle = path.stat().st_size // 2
    edit(path, {middle: bytes(100)})
    for read in (lambda: load_audio(path, RATE), lambda: list(AudioBlocks(path, RATE))):
        with pytest.raises(AudioError, match="cannot be read as audio") as error:
            read()
        assert error.value.reason == "unreadable audio"


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path):
    samples = speech_like(9)
    path = write_format(tmp_path / "pipe.flac", "flac", samples)
    whole = load_audio(path, RATE).numpy()
    forget_flac_length(path)
    found, kinds = read_everywhere(path)
    assert np.array_equal(found, whole) and kinds == ["unknown_length"]
    with open_audio(path) as audio:
        assert audio.frames is None and audio.check_end() == len(samples)
    for start, stop in ((0, 100), (70_000, 90_000), (140_000, None)):
        assert np.array_equal(load_audio(path, RATE, start, stop).numpy(), whole[start:stop])
    cut(path)
    assert read_everywhere(path)[1] == ["truncated", "unknown_length"]


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0xFFFFFFDB, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
@pytest.mark.parametrize("riff", [None, 0, 36, 0xFFFFFFFF])
def test_a_wav_file_whose_header_was_never_finished_is_read_to_its_end(size, riff, tmp_path):
    path = write_format(tmp_path / "recorder.wav", "wav")
    whole = load_audio(path, RATE).numpy()
    set_data_size(path, size, riff)
    found, kinds = read_everywhere(path)
    assert np.array_equal(found, whole) and kinds == ["unknown_length"]


def _zero_rf64(path):
    edit(path, {20: bytes(8), 28: bytes(8)})


def _zero_w64(path):
    edit(path, {path.read_bytes().index(b"data\xf3\xac") + 16: bytes(8), 16: bytes(8)})


def _zero_aiff(path):
    content = path.read_bytes()
    places = content.index(b"SSND") + 4, content.index(b"COMM") + 10, 4
    edit(path, dict.fromkeys(places, bytes(4)))


def _unknown_au(path):
    edit(path, {8: b"\xff" * 4})


def _zero_au(path):
    edit(path, {8: bytes(4)})


def _unknown_caf(path):
    edit(path, {path.read_bytes().index(b"data") + 4: struct.pack(">q", -1)})


def _zero_rifx(path):
    edit(path, {path.read_bytes().index(b"data") + 4: bytes(4)})


@pytest.mark.parametrize(
    "name, change",
    [
        ("rf64", _zero_rf64),
        ("w64", _zero_w64),
        ("aiff", _zero_aiff),
        ("au", _zero_au),
        ("au", _unknown_au),
        ("caf", _unknown_caf),
        ("rifx", _zero_rifx),
        ("wavex", lambda path: set_data_size(path, 0)),
    ],
)
def test_other_headers_that_tell_no_length_are_read_to_the_end(name, change, tmp_path):
    path = write_format(tmp_path / "recorder", name)
    whole = load_audio(path, RATE).numpy()
    change(path)
    found, kinds = read_everywhere(path)
    assert np.array_equal(found, whole) and kinds == ["unknown_length"]


@pytest.mark.parametrize("more", [b"", b"LIST\x04\0\0\0INFO", b"\0"])
def test_a_wav_file_without_samples_holds_none_whatever_follows(more, tmp_path):
    path = tmp_path / "empty.wav"
    soundfile.write(path, [], RATE)
    path.write_bytes(path.read_bytes() + more)
    for read in (lambda: load_audio(path, RATE), lambda: list(AudioBlocks(path, RATE))):
        with pytest.raises(AudioError, match="holds no samples") as error:
            read()
        assert error.value.reason == "no samples"


def test_a_header_that_counts_itself_is_no_truncation(tmp_path):
    path = write_format(tmp_path / "counted.wav", "wav")
    set_data_size(path, 4 * RATE + 44)
    assert read_everywhere(path)[1] == []


def test_only_its_header_shows_that_an_mp3_was_cut(tmp_path):
    random = np.random.default_rng(0)
    steady = (0.1 * random.standard_normal(4 * RATE)).astype("float32")
    path = tmp_path / "cut.mp3"
    options = {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.5}
    soundfile.write(path, steady, RATE, **options)
    whole = path.read_bytes()
    cut(path)
    assert read_everywhere(path)[1] == ["truncated"]
    path.write_bytes(whole)
    drop_xing(path)
    samples, kinds = read_everywhere(path)
    assert kinds == [] and 3.9 * RATE < len(samples) < 4.2 * RATE
    # nothing in it tells how long it was
    cut(path)
    samples, kinds = read_everywhere(path)
    assert kinds == [] and 1.5 * RATE < len(samples) < 2.5 * RATE
    path.write_bytes(b"ID3\4\0\0\0\0\2\1" + bytes(257) + whole[: len(whole) // 2])
    assert read_everywhere(path)[1] == ["truncated"]
    path.write_bytes(path.read_bytes().replace(b"Info", bytes(4)) + b"TAG" + bytes(125))
    assert read_everywhere(path)[1] == []


@pytest.mark.parametrize(
    "tags", [(b"", b""), (b"ID3\4\0\0\0\0\2\1" + bytes(257), b"TAG" + bytes(125))]
)
@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_an_mp3_that_does_not_count_its_frames_is_read_whole(rate, channels, mode, tags, tmp_path):
    # a quiet beginning: its bit rate says little about the rest
    samples = np.concatenate([0.001 * speech_like(1, rate=rate), speech_like(9, 1, rate)])
    samples = np.stack([samples] * channels, 1)
    path = tmp_path / "plain.mp3"
    soundfile.write(path, samples, rate, format="MP3", bitrate_mode=mode, compression_level=0.4)
    drop_xing(path)
    path.write_bytes(tags[0] + path.read_bytes() + tags[1])
    odd = []
    found = load_audio(path, rate, warnings=odd)
    assert odd == [] and 10 * rate <= len(found) < 10.3 * rate
    assert np.array_equal(np.concatenate(list(AudioBlocks(path, rate))), found)
    part = load_audio(path, rate, 5 * rate, 6 * rate).numpy()
    assert np.allclose(part, found[5 * rate : 6 * rate], atol=1e-4)


def test_a_wav_file_around_mp3_is_whole_unless_its_bytes_are_missing(tmp_path):
    inner = write_format(tmp_path / "a.mp3", "mp3", speech_like(6)).read_bytes()
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 4000, 1, 0, 12, 1, 2, 144, 1, 1393)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"fact" + struct.pack("<II", 4, 6 * RATE) + b"data" + struct.pack("<I", len(inner))
    path = tmp_path / "around.wav"
    path.write_bytes(
        b"RIFF" + struct.pack("<I", 4 + len(chunks + inner)) + b"WAVE" + chunks + inner
    )
    samples, kinds = read_everywhere(path)
    assert kinds == [] and abs(len(samples) - 6 * RATE) < 4000
    cut(path)
    assert read_everywhere(path)[1] == ["truncated"]


def test_a_long_file_that_promises_a_terabyte_is_read_in_pieces(tmp_path):
    path = write_format(tmp_path / "endless.flac", "flac")
    kept = path.read_bytes()[21]
    edit(path, {21: bytes([kept | 0x0F]), 22: b"\xff" * 4})
    samples, kinds = read_everywhere(path)
    assert len(samples) == 2 * RATE and kinds == ["truncated"]


def test_a_place_after_the_end_is_an_error_that_names_it(tmp_path):
    path = write_format(tmp_path / "short.wav", "wav")
    with pytest.raises(AudioError, match=r"short.wav: has 32000 samples, and none at 32001"):
        load_audio(path, RATE, 32001)


def test_a_file_named_raw_is_read_by_its_header_and_refused_without_one(tmp_path):
    path = write_format(tmp_path / "whole", "wav")
    raw = path.rename(tmp_path / "whole.RAW")
    samples, kinds = read_everywhere(raw)
    assert kinds == [] and len(samples) == 2 * RATE
    raw.write_bytes(bytes(3200))
    with pytest.raises(AudioError, match="whole.RAW: cannot be read as audio"):
        open_audio(raw)
