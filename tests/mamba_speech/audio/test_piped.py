"""Sound from a pipe: raw samples and WAV in pieces of any lengths, rates that change, and what is no sound."""

import io
import os
import struct
import threading

import numpy as np
import pytest
import soundfile
import torch

from mamba_speech.audio import AudioError, resample_array
from mamba_speech.audio.piped import PipedAudio, at_rate

RATE = 16000


class Trickle(io.RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, content, most):
        self.content, self.most = io.BytesIO(content), most

    def readable(self):
        return True

    def readinto(self, buffer):
        part = self.content.read(min(self.most, len(buffer)))
        buffer[: len(part)] = part
        return len(part)


def piped(content, rate=None, most=1 << 16):
    return PipedAudio(io.BufferedReader(Trickle(content, most)), rate)


def heard(content, rate=None, most=1 << 16):
    """The samples of a pipe, and the rates at which they came."""
    pieces, rates = zip(*piped(content, rate, most), strict=True)
    return torch.cat(pieces).numpy(), list(dict.fromkeys(rates))


def noise(seconds=0.3, channels=1, seed=0):
    shape = (round(seconds * RATE), channels)
    return 0.1 * np.random.default_rng(seed).standard_normal(shape).astype("float32")


def wav(samples, rate=RATE, subtype="PCM_16", form="WAV"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=form)
    return file.getvalue()


@pytest.mark.parametrize("most", [1, 3, 1000, 1 << 16])
def test_raw_samples_are_the_same_in_pieces_of_any_bytes(most):
    integers = (noise()[:, 0] * 32768).astype("<i2")
    samples, rates = heard(integers.tobytes(), 8000, most)
    assert rates == [8000]
    np.testing.assert_array_equal(samples, integers.astype("float32") / 32768)


def test_a_byte_that_is_no_sample_is_left_out_with_a_word(caplog):
    samples, _ = heard(b"\0\x40\0\x40\x7f", RATE)
    assert samples.tolist() == [0.5, 0.5]
    assert "ended within a sample" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\x01"])
def test_a_pipe_without_a_sample_is_refused(content):
    with pytest.raises(AudioError, match="ended before the first sample"):
        heard(content, RATE)
    with pytest.raises(AudioError, match="ended|no WAV"):
        heard(content)


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"]
)
@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
def test_a_wav_gives_what_its_file_gives(subtype, form):
    content = wav(noise(channels=2), 22050, subtype, form)
    wanted, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    samples, rates = heard(content, most=777)
    assert rates == [22050]
    np.testing.assert_allclose(samples, wanted.mean(1), atol=1e-7)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_that_does_not_know_its_length_is_read_to_the_end(size):
    content = bytearray(wav(noise()))
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", size)
    assert len(heard(bytes(content))[0]) == len(noise())


def test_a_wav_that_was_cut_off_is_read_as_far_as_it_goes(caplog):
    samples, _ = heard(wav(noise())[:2044])
    assert len(samples) == 1000 and "was cut off" in caplog.text


def test_a_rate_that_changes_in_mid_stream_is_followed(caplog):
    first, second = noise(seed=1)[:, 0], noise(seed=2)[:, 0]
    content = wav(first, RATE) + wav(second, 8000)
    samples = torch.cat(list(at_rate(piped(content, most=500), RATE))).numpy()
    second = soundfile.read(io.BytesIO(wav(second, 8000)), dtype="float32")[0]
    wanted = np.concatenate([first, resample_array(second, 8000, RATE)])
    np.testing.assert_allclose(samples, wanted, atol=1e-4)
    assert "its rate changes from 16000 to 8000 Hz after 0.30 s" in caplog.text


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def with_chunks(content, *chunks):
    """A WAV with chunks behind its samples."""
    content += b"".join(chunks)
    return content[:4] + struct.pack("<I", len(content) - 8) + content[8:]


def test_chunks_behind_the_samples_are_no_sound_and_hide_no_wav_behind_them(caplog):
    first, second = noise(seed=1)[:, 0], noise(seed=2)[:, 0]
    tagged = with_chunks(wav(first), chunk(b"LIST", b"INFO" + b"x" * 33), chunk(b"id3 ", b"y"))
    samples, rates = heard(tagged + wav(second), most=100)
    assert len(samples) == 2 * len(first) and rates == [RATE]
    assert len(heard(tagged)[0]) == len(first)
    # a header that promises more than there is hides no WAV either
    promised = wav(first)[:4] + struct.pack("<I", 1 << 30) + wav(first)[8:]
    assert len(heard(promised + wav(second))[0]) == 2 * len(first)
    assert not caplog.records


def wide(content, name=b"RF64", size=None, behind=b""):
    """A WAV of 64-bit sizes; without a size its program did not know it."""
    data = content[content.index(b"data") + 8 :]
    told = struct.pack("<QQQI", 0 if size is None else 1 << 20, size or 0, 0, 0)
    form = content[content.index(b"fmt ") :][:24]
    head = name + b"\xff" * 4 + b"WAVE" + chunk(b"ds64", told) + form
    return head + b"data" + b"\xff" * 4 + data + behind


@pytest.mark.parametrize("name", [b"RF64", b"BW64"])
def test_a_wav_of_wide_sizes_is_read_as_far_as_its_samples_go(name, caplog):
    content, count = wav(noise()), len(noise())
    samples, _ = heard(wide(content, name, 2 * count, chunk(b"LIST", b"INFO" + bytes(999))))
    assert len(samples) == count and not caplog.records
    np.testing.assert_array_equal(samples, heard(content)[0])
    # as `ffmpeg -rf64 always` writes into a pipe
    assert len(heard(wide(content, name))[0]) == count


def test_what_follows_a_wav_and_is_none_is_left_out(caplog):
    assert len(heard(wav(noise()) + b"something else altogether")[0]) == len(noise())
    assert "what follows the WAV is no sound" in caplog.text


def test_other_containers_and_other_codecs_are_refused_with_what_to_do(tmp_path):
    for content in (
        wav(noise(), form="FLAC"),
        wav(noise(), subtype="VORBIS", form="OGG"),
        b"x" * 99,
    ):
        with pytest.raises(AudioError, match="holds no WAV; decode it first"):
            heard(content)
    with pytest.raises(AudioError, match="give the file itself"):
        heard(wav(noise(), subtype="IMA_ADPCM"))
    for place, value in ((22, 0), (24, 0)):
        content = bytearray(wav(noise()))
        content[place : place + 2] = struct.pack("<H", value)
        with pytest.raises(AudioError, match="which cannot be"):
            heard(bytes(content))
    for end in (20, 30, 40):
        with pytest.raises(AudioError, match="ended within its WAV header"):
            heard(wav(noise())[:end])


def test_samples_that_are_no_sound_are_refused():
    samples = noise()
    samples[100] = np.nan
    with pytest.raises(AudioError, match="not finite"):
        heard(wav(samples, subtype="FLOAT"))


def test_a_piece_is_given_as_soon_as_its_bytes_are_there():
    out, into = os.pipe()
    pieces = iter(PipedAudio(os.fdopen(out, "rb"), RATE, piece_seconds=10))
    given = []
    reader = threading.Thread(target=lambda: given.append(next(pieces)[0].tolist()))
    reader.start()
    os.write(into, b"\0\x40")
    reader.join(20)
    # the pipe is still open, and ten seconds are far off
    assert given == [[0.5]]
    os.close(into)
