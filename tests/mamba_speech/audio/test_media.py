"""Media files through the program ffmpeg and through PyAV: samples, names, damage, and what is said without either."""

import os
import sys
import time

import av
import numpy as np
import pytest
import torch

from mamba_speech.audio import AudioError, decoders, find_audio, load_audio
from mamba_speech.audio.media import has_decoder, media_format, open_media
from mamba_speech.audio.media_formats import SUFFIXES
from mamba_speech.audio.opening import open_audio
from mamba_speech.blocks import AudioBlocks
from tests.support.media import install_ffmpeg, write_media

RATE = 16000
# name, codec, format, rate, channels, samples that the encoder put before, or left out
FILES = [
    ("a.m4a", "aac", None, 16000, 1, 0),
    ("lossless.m4a", "alac", None, 44100, 2, 0),
    ("a.mp4", "aac", None, 48000, 2, 0),
    ("a.3gp", "aac", None, 16000, 1, 0),
    ("a.mov", "pcm_s16le", None, 8000, 6, 0),
    ("a.aac", "aac", "adts", 44100, 2, 1024),
    ("a.webm", "libopus", None, 48000, 2, 0),
    ("a.mkv", "flac", None, 22050, 1, 0),
    ("floats.mka", "pcm_f32le", "matroska", 11025, 1, 0),
    ("a.wma", "wmav2", "asf", 44100, 2, -2048),
    ("a.wav", "wmav2", "wav", 44100, 1, -2048),
    ("a.ts", "aac", "mpegts", 44100, 1, 1024),
    ("a.ac3", "ac3", None, 48000, 2, 256),
    ("a.amr", "libopencore_amrnb", "amr", 8000, 1, 40),
    ("a.wv", "wavpack", None, 16000, 1, 0),
    ("a.caf", "libmp3lame", "caf", 44100, 1, 0),
]


def sound(rate, channels, seconds=0.5):
    """A sweep from 200 to 2,000 Hz, quieter in each further channel; no piece of it is like another."""
    times = np.arange(round(rate * seconds)) / rate
    sweep = np.sin(2 * np.pi * (200 * times + 900 * times**2 / seconds))
    return np.stack([0.5 * sweep / (1 + channel) for channel in range(channels)], axis=1)


@pytest.fixture(params=["ffmpeg", "pyav"])
def decoder(request, tmp_path, monkeypatch):
    """Each way to decode, with only that one there."""
    if request.param == "ffmpeg":
        install_ffmpeg(tmp_path / "bin", monkeypatch)
    else:
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return request.param


@pytest.fixture
def no_decoder(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setitem(sys.modules, "av", None)


@pytest.mark.parametrize("name,codec,container,rate,channels,delay", FILES)
def test_a_media_file_gives_the_samples_that_were_encoded(
    name, codec, container, rate, channels, delay, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    given = sound(rate, channels)
    path = write_media(tmp_path / name, given, rate, codec, container)
    with open_media(path) as file:
        assert (file.samplerate, file.channels, file.frames) == (rate, channels, None)
        assert not file.truncated
        found = file.read()
        assert found.dtype == np.float32 and found.shape[1] == channels
        assert len(file.read(10)) == 0
        # the same samples from any place and in any pieces
        for start, count in ((700, 500), (3, 2000), (0, 7)):
            file.seek(start)
            assert np.array_equal(file.read(count), found[start : start + count])
        file.seek(10**9)
        assert len(file.read(5)) == 0
    for channel in range(min(channels, 2)):
        one, other = found[:, channel], given[:, channel]
        edge = min(3000, len(other) // 4)
        late = np.argmax(np.correlate(one, other[edge:-edge], "valid")) - edge
        assert late == delay
        one, other = one[max(delay, 0) :], other[max(-delay, 0) :]
        ends = min(len(other), len(one))
        lost = one[:ends] - other[:ends]
        assert 10 * np.log10(np.mean(other**2) / np.mean(lost**2)) > 8


def test_ffmpeg_and_pyav_give_the_same_samples(tmp_path, monkeypatch):
    for name, codec in (("a.m4a", "aac"), ("a.webm", "libopus"), ("a.mkv", "pcm_f32le")):
        write_media(tmp_path / name, sound(48000, 2, 3), 48000, codec)
    found = {}
    for way in ("pyav", "ffmpeg"):
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
        if way == "ffmpeg":
            install_ffmpeg(tmp_path / "bin", monkeypatch)
        for name in ("a.m4a", "a.webm", "a.mkv"):
            with open_media(tmp_path / name) as file:
                found[way, name] = file.samplerate, file.read(), type(file._decoder).__name__
    for name in ("a.m4a", "a.webm", "a.mkv"):
        (rate, one, first), (other_rate, other, second) = found["pyav", name], found["ffmpeg", name]
        assert (first, second) == ("PyAV", "Ffmpeg")
        assert rate == other_rate == 48000 and np.array_equal(one, other)


NAMES = [
    b"-x.m4a",
    b"concat:a|b.m4a",
    b"http:x.m4a",
    b"a%03d?.m4a",
    b"caf\xe9.m4a",
    b"new\nline.m4a",
]


@pytest.mark.parametrize("name", [*NAMES, "é.m4a".encode(), b"pipe:0.m4a", b"$(date).m4a"])
def test_any_name_is_the_name_of_a_file(name, decoder, tmp_path, monkeypatch):
    write_media(tmp_path / "plain.m4a", sound(RATE, 1), RATE, "aac")
    try:
        os.rename(tmp_path / "plain.m4a", os.fsencode(tmp_path) + b"/" + name)
    except OSError:
        pytest.skip("the disk refuses such a name")
    monkeypatch.chdir(tmp_path)
    with open_media(os.fsdecode(name)) as file:
        assert len(file.read()) >= RATE / 2


@pytest.mark.parametrize(
    "name,codec,container",
    [("a.webm", "libopus", None), ("a.wma", "wmav2", "asf"), ("a.mkv", "flac", None)],
)
def test_half_a_file_is_read_and_called_truncated(name, codec, container, decoder, tmp_path):
    path = write_media(tmp_path / name, sound(48000, 1, 2), 48000, codec, container)
    with open_media(path) as file:
        whole = file.read()
        assert not file.truncated
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_media(path) as file:
        part = file.read()
        assert file.truncated and len(whole) // 5 < len(part) < len(whole)
        assert np.array_equal(part[:-5000], whole[: len(part) - 5000])


def video_without_sound(path):
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)


def test_what_cannot_be_decoded_is_said_in_one_sentence_that_names_the_file(decoder, tmp_path):
    write_media(tmp_path / "half.m4a", sound(RATE, 1), RATE, "aac")
    half = (tmp_path / "half.m4a").read_bytes()
    contents = {
        # what such a file says about itself stands at its end
        "half.m4a": (half[: len(half) // 2], "is cut short, and what is left cannot be decoded"),
        "noise.m4a": (b"\0\0\0\x18ftypM4A " + bytes(range(256)) * 40, "cannot be read as audio ("),
        "noise.wma": (
            bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + b"\xff" * 99,
            "cannot be re",
        ),
        "none.amr": (b"#!AMR\n", "cannot be read as audio ("),
        # a WAV file of a codec that nobody knows
        "codec.wav": (
            b"RIFF\x24\1\0\0WAVEfmt \x10\0\0\0\x77\x77\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\1\0\0"
            + bytes(256),
            "cannot be read as audio (",
        ),
        "list.m4a": (b"#EXTM3U\n#EXTINF:1\nother.ts\n#EXT-X-ENDLIST\n", "(its format is unknown)"),
        "more.mp4": (b"ffconcat version 1.0\nfile other.m4a\n", "(its format is unknown)"),
    }
    for name, (content, _) in contents.items():
        (tmp_path / name).write_bytes(content)
    video_without_sound(tmp_path / "film.mp4")
    for name, (_, reason) in [*contents.items(), ("film.mp4", (b"", "holds no sound track"))]:
        with pytest.raises(AudioError) as caught:
            open_media(tmp_path / name)
        text = str(caught.value)
        assert text.startswith(f"{tmp_path / name}: ") and reason in text
        assert "\n" not in text and text.count(str(tmp_path / name)) == 1


def test_without_a_decoder_one_sentence_says_what_to_install(no_decoder, tmp_path):
    assert not has_decoder()
    path = tmp_path / "a.amr"
    path.write_bytes(b"#!AMR\n" + bytes(64))
    with pytest.raises(AudioError) as caught:
        open_media(path)
    assert str(caught.value) == (
        f"{path}: is in the format AMR, which needs a decoder; install the program ffmpeg, or pip install av"
    )


def test_an_ffmpeg_that_hangs_or_fails_ends_in_one_sentence(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.m4a", sound(RATE, 1), RATE, "aac")
    monkeypatch.setattr(decoders, "STALL_SECONDS", 1)
    begun = time.monotonic()
    scripts = {
        "import time; time.sleep(50)": "ffmpeg gave nothing for 1 seconds",
        # killed, and a library of its own missing
        "import os; os.kill(os.getpid(), 9)": "ffmpeg: nothing in it can be decoded",
        "import sys; sys.exit('ffmpeg: error while loading libx.so.1')": "loading libx.so.1",
        "print('x' * 100)": "ffmpeg gave something else",
        "import sys; sys.stderr.write('[aac @ 0x1] bad\\n' * 100000); sys.exit(1)": "(ffmpeg: bad)",
    }
    for script, reason in scripts.items():
        install_ffmpeg(tmp_path / "bin", monkeypatch, "#!{python}\n" + script + "\n")
        with pytest.raises(AudioError) as caught:
            open_media(path)
        assert str(caught.value).startswith(f"{path}: ") and reason in str(caught.value)
    (tmp_path / "bin" / "ffmpeg").write_text("#!/no/such/interpreter\n")
    with pytest.raises(AudioError, match="ffmpeg cannot be started"):
        open_media(path)
    assert time.monotonic() - begun < 20


def test_a_file_that_is_closed_early_leaves_no_process(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.m4a", sound(RATE, 1, 20), RATE, "aac")
    install_ffmpeg(tmp_path / "bin", monkeypatch)
    with open_media(path) as file:
        assert len(file.read(100)) == 100
        process = file._decoder._process
        assert process.poll() is None
    assert process.poll() is not None


def test_files_that_libsndfile_reads_are_no_media(tmp_path):
    import soundfile

    for name, subtype in (
        ("a.wav", "PCM_16"),
        ("a.flac", "PCM_16"),
        ("a.ogg", "VORBIS"),
        ("b.ogg", "OPUS"),
        ("a.mp3", "MPEG_LAYER_III"),
        ("a.caf", "PCM_16"),
        ("b.wav", "FLOAT"),
        ("c.wav", "MS_ADPCM"),
        ("d.wav", "GSM610"),
        ("b.caf", "ALAC_16"),
        ("a.aiff", "PCM_16"),
    ):
        soundfile.write(tmp_path / name, sound(48000, 1), 48000, subtype)
        assert media_format(tmp_path / name) is None, name
    for content in (
        b"",
        b"x",
        b"#!/bin/sh\n",
        b"RIFF",
        b"RIFF\0\0\0\0WAVE",
        bytes(range(256)) * 20,
        b"\xff\xfb" * 99,
    ):
        (tmp_path / "x.m4a").write_bytes(content)
        assert media_format(tmp_path / "x.m4a") is None
    assert media_format(tmp_path / "missing.m4a") is None and media_format(tmp_path) is None
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


def test_a_tag_before_raw_aac_is_passed_over(tmp_path):
    path = write_media(tmp_path / "a.aac", sound(RATE, 1), RATE, "aac", "adts")
    size = 5000
    tag = b"ID3\4\0\0" + bytes(size >> 7 * place & 127 for place in (3, 2, 1, 0)) + bytes(size)
    (tmp_path / "b.aac").write_bytes(tag + path.read_bytes())
    with open_media(path) as one, open_media(tmp_path / "b.aac") as other:
        assert np.array_equal(one.read(), other.read())


def test_every_reader_takes_media_and_all_agree(decoder, tmp_path):
    path = write_media(tmp_path / "a.m4a", sound(44100, 2, 7), 44100, "aac")
    whole = load_audio(path, RATE)
    assert torch.equal(torch.cat(list(AudioBlocks(path, RATE))), whole)
    with open_audio(path) as audio:
        assert (audio.rate, audio.channels, audio.warnings) == (44100, 2, ())
        assert audio.floating and audio.check_end() >= 7 * 44100
    # a second from the third on
    part = load_audio(path, RATE, 3 * 44100, 4 * 44100)
    assert len(part) == RATE and torch.allclose(
        part[500:-500], whole[3 * RATE :][500 : RATE - 500], atol=1e-4
    )
    film = write_media(tmp_path / "half.webm", sound(48000, 1, 2), 48000, "libopus")
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with open_audio(film) as audio:
        audio.read_all()
        assert [warning.kind for warning in audio.warnings] == ["truncated"]


def test_media_are_found_in_a_folder_where_they_can_be_read(decoder, tmp_path):
    for name in ("b.wav", "a.M4A", "c.webm", "d.txt", "._e.m4a"):
        (tmp_path / name).write_bytes(b"")
    found = [path.name for path in find_audio([tmp_path])]
    assert found == ["a.M4A", "b.wav", "c.webm"]


def test_without_a_decoder_the_media_of_a_folder_are_counted_and_named_once(
    no_decoder, tmp_path, caplog
):
    for name in ("b.wav", "a.m4a", "c.webm", "d.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_audio([tmp_path])] == ["b.wav"]
    (message,) = caplog.messages
    names = ", ".join(str(tmp_path / name) for name in ("a.m4a", "c.webm"))
    assert f"2 files that only ffmpeg or the package av reads ({names})" in message
    # one that is named is not passed over
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x18ftypM4A ")
    with pytest.raises(
        AudioError, match="a.m4a: is in the format MP4, which needs a decoder; inst"
    ):
        load_audio(find_audio([tmp_path / "a.m4a"])[0], RATE)
