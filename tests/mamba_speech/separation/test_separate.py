"""Separating recordings of every kind into files, in windows and along a stream, and the command."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mamba_speech.audio import AudioError, load_audio
from mamba_speech.blocks import write_sources
from mamba_speech.cli import main
from mamba_speech.separation.separator import Separator
from mamba_speech.separation.windows import separate_stream, separate_windows
from modules.separation.level import fit_to_mixture
from tests.support.separation import RATE, joined, say, tones, write_parts, write_run
from tests.support.separation_networks import EDGE, assert_near, bands, tiny

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Output folders of a causal run, and of one that works in windows."""
    folder = tmp_path_factory.mktemp("runs")
    for kind in ("causal", "whole"):
        write_run(folder / kind, "mambatasnet_debug.yaml", bidirectional=kind == "whole")
    return folder


@pytest.fixture
def separator(runs):
    """A separator by frequency, in windows."""
    found = Separator.load(runs / "whole", "cpu")
    found.network = bands()
    return found


def separated(separator, path, folder, **options):
    """The sources of a file (samples, speakers), their rate, and the factor."""
    outputs = [folder / f"{path.stem}_s{number}.wav" for number in (1, 2)]
    factor = separator.separate_file(path, outputs, **options)
    read = [soundfile.read(output, dtype="float32") for output in outputs]
    return torch.from_numpy(np.stack([sound for sound, _ in read], 1)), read[0][1], factor


def test_a_recording_no_longer_than_a_window_is_separated_whole(separator):
    torch.manual_seed(2)
    separator.network = tiny("mambatasnet")
    for samples in (3, 15, 16, 800, 4000):
        mix = 0.1 * torch.randn(samples)
        whole = fit_to_mixture(separator.network(mix[None])[0], mix)
        options = {"window_seconds": 0.51, "overlap_seconds": 0.1}
        assert_near(separator.separate(mix, RATE, **options).sources, whole)


class Turned(torch.nn.Module):
    """A network around another, which turns the second source upside down in every other window."""

    def __init__(self, network):
        super().__init__()
        self.network, self.sign = network, 1.0
        self.kernel_size, self.stride = network.kernel_size, network.stride

    def forward(self, mix):
        self.sign = -self.sign
        return self.network(mix) * torch.tensor([1.0, self.sign])


@pytest.mark.parametrize("fitted", [True, False], ids=["at a level", "as the network gives it"])
def test_a_source_that_a_network_turns_upside_down_does_not_fade_out_between_windows(
    fitted, monkeypatch
):
    if not fitted:
        # a fit that cannot tell the sign, as where the source is all but silent
        monkeypatch.setattr(
            "mamba_speech.separation.windows.fit_to_mixture", lambda sources, *_, **__: sources
        )
    mix, whole = tones(10).sum(1), bands()(tones(10).sum(1)[None])[0]
    sources, _ = joined(separate_windows(Turned(bands()), mix.split(5000), 2 * RATE, RATE))
    # one sign for the whole recording: which one, the network says
    sources = sources * torch.where((sources * whole).sum(0) < 0, -1.0, 1.0)
    assert_near(sources[EDGE:-EDGE], whole[EDGE:-EDGE], 2e-3)


def test_a_causal_run_gives_along_a_file_what_the_whole_gives_at_one_level(runs):
    separator = Separator.load(runs / "causal", "cpu")
    assert separator.causal and not Separator.load(runs / "whole", "cpu").causal
    mix = torch.from_numpy(say(1, 1.5, np.random.default_rng(0))).float()
    raw, back = joined(separate_stream(separator.network, mix.split(1111)))
    assert torch.equal(back, mix)
    assert_near(raw, separator.network(mix[None])[0])
    assert_near(separator.separate(mix, RATE).sources, fit_to_mixture(raw, mix), 1e-3)


@pytest.mark.parametrize(
    "suffix, rate, channels", [("wav", 44100, 2), ("flac", 8000, 1), ("ogg", 16000, 2)]
)
def test_any_format_rate_and_channels_give_a_source_a_file(
    suffix, rate, channels, separator, tmp_path
):
    sources = tones(3, rate)
    mix = sources.sum(1)
    path = tmp_path / f"mix.{suffix}"
    soundfile.write(path, mix[:, None].expand(-1, channels).numpy(), rate)
    found, found_rate, factor = separated(separator, path, tmp_path)
    assert (found_rate, factor) == (RATE, 1.0)
    # as what is read from the file in one piece
    read = load_audio(path, RATE)
    assert_near(found, separator.separate(read, RATE).sources, 2e-3)
    kept, kept_rate, _ = separated(separator, path, tmp_path, keep_rate=True)
    assert kept_rate == rate and len(kept) == len(mix)
    middle = slice(rate // 10, -rate // 10)
    assert (kept[middle].sum(1) - mix[middle]).abs().max() < (0.04 if suffix == "ogg" else 0.01)


def test_sources_are_written_as_the_nearest_16_bit_samples(tmp_path):
    paths = [tmp_path / "1.wav", tmp_path / "2.wav"]
    blocks = np.random.default_rng(0).uniform(-0.99, 0.99, (2, 3000, 2)).astype(np.float32)
    blocks[0, 0] = 1.0, -1.0  # the first has no 16-bit sample of its own
    write_sources(paths, iter(blocks), RATE)
    for path, source in zip(paths, np.concatenate(blocks).T, strict=True):
        error = soundfile.read(path, dtype="int16")[0] - 32768.0 * source
        assert np.abs(error[1:]).max() <= 0.5 and abs(error[0]) <= 1


@pytest.mark.parametrize("kind", ["causal", "whole"])
@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(8000),
        np.full(8000, 0.7),
        0.1 * np.random.default_rng(0).standard_normal(800),
        np.ones(5),
        np.concatenate([np.zeros(9000), say(1, 1.0, np.random.default_rng(0)), np.zeros(9000)]),
        30 * say(1, 2.0, np.random.default_rng(0)) / 0.1,
    ],
    ids=["silence", "offset", "0.1 s", "5 samples", "silence around", "very loud"],
)
@pytest.mark.parametrize("level", ["mixture", "peak"])
def test_nothing_that_is_no_number_and_nothing_that_clips(level, sound, kind, runs, tmp_path):
    separator = Separator.load(runs / kind, "cpu")
    path = tmp_path / "mix.wav"
    soundfile.write(path, sound, RATE, "FLOAT")
    options = {"level": level, "window_seconds": 0.8, "overlap_seconds": 0.3}
    outputs, _, factor = separated(separator, path, tmp_path, **options)
    in_memory = separator.separate(sound, RATE, **options).sources
    assert outputs.shape == (len(sound), 2) and in_memory.shape == outputs.shape
    assert torch.isfinite(in_memory).all()
    assert in_memory.abs().max() <= 0.9901 and outputs.abs().max() <= 0.9901
    assert (outputs - in_memory).abs().max() < 1e-4
    assert 0 < factor <= 1


def test_a_mixture_that_is_too_loud_is_turned_down_by_one_factor(separator, tmp_path):
    path = tmp_path / "loud.wav"
    mix = 20 * tones(3).sum(1)
    soundfile.write(path, mix.numpy(), RATE, "FLOAT")
    found, _, factor = separated(separator, path, tmp_path, window_seconds=1, overlap_seconds=0.5)
    wanted = separator.network(mix[None])[0]
    assert factor == pytest.approx(0.99 / float(wanted.abs().max()), rel=1e-3)
    assert_near(found[EDGE:-EDGE], factor * wanted[EDGE:-EDGE], 2e-3)


@pytest.mark.exhaustive
def test_memory_does_not_grow_with_the_length_of_the_file(runs, tmp_path):
    """Ten minutes need hardly more than one: no waveform is held whole (mono and sources are 58 MB)."""
    random = np.random.default_rng(0)
    for minutes in (1, 10):
        sound = 0.1 * random.standard_normal(minutes * 60 * RATE).astype("float32")
        soundfile.write(tmp_path / f"{minutes}.wav", sound, RATE)
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc, which this system has not")
    program = (
        "import re, sys; from mamba_speech.separation.separator import Separator\n"
        "for name in ('1', '10'):\n"
        "    path = f'{sys.argv[1]}/{name}'\n"
        "    for run in sys.argv[2:]:\n"
        "        separator = Separator.load(run, 'cpu')\n"
        "        separator.separate_file(f'{path}.wav', [f'{path}_1.wav', f'{path}_2.wav'])\n"
        "    print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path, runs / "causal", runs / "whole"],
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    one, ten = map(int, done.stdout.split())
    assert ten < 1.05 * one and ten - one < 25_000
    assert soundfile.info(tmp_path / "10_1.wav").frames == 600 * RATE


def test_one_recording_gives_one_separation_and_several_an_iterator(separator, tmp_path):
    waveform = tones(3).sum(1)
    path = tmp_path / "mix.wav"
    soundfile.write(path, waveform.numpy(), RATE, "FLOAT")
    one = separator.separate(path)
    assert one.path == str(path) and one.seconds == 3.0 and one.sample_rate == RATE
    assert torch.equal(one.sources, separator.separate(waveform, RATE).sources)
    same, bad = separator.separate([path, tmp_path / "missing.wav"])
    assert torch.equal(same.sources, one.sources)
    assert bad.sources is None and bad.error == f"{tmp_path / 'missing.wav'}: no such file"
    with pytest.raises(AudioError, match="missing.wav: no such file"):
        separator.separate(tmp_path / "missing.wav")
    with pytest.raises(ValueError, match="there is nothing to save: .*missing.wav"):
        bad.save(tmp_path)


def test_a_separation_is_saved_as_a_file_a_speaker_under_the_recordings_name(separator, tmp_path):
    mix = tones(2).sum(1)
    soundfile.write(tmp_path / "a mix.wav", mix.numpy(), RATE, "FLOAT")
    found = separator.separate(tmp_path / "a mix.wav")
    paths = found.save(tmp_path / "deep" / "er")
    assert [path.name for path in paths] == ["a mix_s1.wav", "a mix_s2.wav"]
    for path, source in zip(paths, found.sources.T, strict=True):
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == RATE and np.abs(samples - source.numpy()).max() < 2**-15
    assert found in {found} and found != separator.separate(path)
    with pytest.raises(ValueError, match="a waveform has no name"):
        separator.separate(mix, RATE).save(tmp_path)
    before = paths[0].read_bytes()
    with pytest.raises(FileExistsError, match="a mix_s1.wav is there already: give overwrite=True"):
        separator.separate(0.5 * mix, RATE).save(paths[0].parent, "a mix")
    assert paths[0].read_bytes() == before
    separator.separate(0.5 * mix, RATE).save(paths[0].parent, "a mix", overwrite=True)
    assert paths[0].read_bytes() != before
    assert separator.separate(mix, RATE).save(tmp_path, "b")[0] == tmp_path / "b_s1.wav"


def test_wrong_options_are_refused_before_anything_is_read(separator):
    for options, message in (
        ({"level": "loud"}, "level must be mixture or peak"),
        ({"window_seconds": 1, "overlap_seconds": 1}, "overlap_seconds 1 must be 0 or more"),
        ({"window_seconds": float("nan")}, "less than window_seconds nan"),
        ({"window_seconds": float("inf")}, "less than window_seconds inf"),
        ({"overlap_seconds": -1}, "overlap_seconds -1 must be 0 or more"),
        (
            {"overlap_seconds": 9.9999},
            "overlap_seconds 9.9999 must be at most 0.9 of window_seconds 10",
        ),
        ({"window_seconds": 2, "overlap_seconds": 1.81}, "at most 0.9 of window_seconds 2"),
    ):
        with pytest.raises(ValueError, match=message):
            separator.separate(iter(["missing.wav"]), **options)


def test_the_outputs_of_a_file_are_one_a_speaker_and_never_the_file(separator, tmp_path):
    path, other = tmp_path / "a.wav", tmp_path / "new" / "b.wav"
    soundfile.write(path, 0.1 * np.sin(np.arange(4000) / 3), RATE)
    before = path.read_bytes()
    for outputs in ("ab", [other], [other] * 2, [path, other], [tmp_path / "new/../a.wav", other]):
        with pytest.raises(ValueError, match="outputs|each output"):
            separator.separate_file(str(path), outputs)
    assert path.read_bytes() == before and not other.parent.exists()
    separator.separate_file(str(path), [str(other), str(other.with_name("c.wav"))])
    assert [one.name for one in sorted(other.parent.iterdir())] == ["b.wav", "c.wav"]


@pytest.fixture
def mixtures(tmp_path):
    """A folder with audio in two places, and one file that is no audio."""
    folder = tmp_path / "in"
    (folder / "deep" / "er").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a.wav", "deep/er/b.flac"):
        soundfile.write(folder / name, say(0, 0.6, random) + say(3, 0.6, random), RATE)
    (folder / "notes.txt").write_text("no audio")
    return folder


def command(runs, *arguments, kind="whole"):
    return main(["separate", str(runs / kind), *map(str, arguments), "--device", "cpu"])


def test_a_folder_is_mirrored_and_every_file_that_is_written_is_named(
    runs, mixtures, tmp_path, capsys
):
    out = tmp_path / "out"
    assert command(runs, mixtures, "--output_folder", out) == 0
    shown = capsys.readouterr()
    rows = [list(map(Path, line.split("\t"))) for line in shown.out.splitlines()]
    assert [row[0] for row in rows] == [mixtures / "a.wav", mixtures / "deep/er/b.flac"]
    expected = [
        out / "a_s1.wav",
        out / "a_s2.wav",
        out / "deep/er/b_s1.wav",
        out / "deep/er/b_s2.wav",
    ]
    assert [one for row in rows for one in row[1:]] == expected
    assert sorted(one for one in out.rglob("*") if one.is_file()) == sorted(expected)
    assert shown.err == ""


def test_nothing_is_overwritten_unless_it_is_asked_for(runs, mixtures, tmp_path, capsys):
    arguments = [mixtures / "a.wav", "--output_folder", tmp_path]
    (tmp_path / "a_s2.wav").write_text("mine")
    assert command(runs, *arguments) == 1
    assert "a_s2.wav is there already; give --overwrite" in capsys.readouterr().err
    assert (tmp_path / "a_s2.wav").read_text() == "mine" and not (tmp_path / "a_s1.wav").exists()
    assert command(runs, *arguments, "--overwrite") == 0
    assert soundfile.info(tmp_path / "a_s2.wav").frames == 4800


def test_two_inputs_of_one_name_do_not_share_their_outputs(runs, mixtures, tmp_path, capsys):
    shutil.copy(mixtures / "a.wav", mixtures / "deep" / "a.wav")
    inputs = [mixtures / "a.wav", mixtures / "deep" / "a.wav"]
    sound, rate = soundfile.read(mixtures / "a.wav")
    soundfile.write(mixtures / "deep" / "a.flac", sound, rate)
    # whether there is another file beside it, says its folder and not the command
    assert command(runs, *inputs, "--output_folder", tmp_path / "out") == 0
    written = ["a_s1.wav", "a_s2.wav", "deep/a.wav_s1.wav", "deep/a.wav_s2.wav"]
    out = tmp_path / "out"
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.wav"))
    assert found == written and capsys.readouterr().err == ""
    # nothing that is there is lost
    assert command(runs, mixtures, "--output_folder", out) == 1
    shown = capsys.readouterr()
    assert shown.err.count("is there already; give --overwrite") == 2
    assert "deep/a.flac_s1.wav" in shown.out and "deep/er/b_s1.wav" in shown.out
    # once, whatever its name
    assert (
        command(runs, inputs[0], os.path.relpath(inputs[0]), "--output_folder", out, "--overwrite")
        == 0
    )
    assert capsys.readouterr().out.count("\n") == 1


def test_no_recording_that_is_to_be_separated_is_written_over(runs, mixtures, capsys):
    other = mixtures / "a_s1.wav"
    shutil.copy(mixtures / "a.wav", other)
    inputs = [mixtures / "a.wav", other, "--output_folder", mixtures, "--overwrite"]
    before = other.read_bytes()
    assert command(runs, *inputs) == 1
    shown = capsys.readouterr()
    assert "a_s1.wav, which is to be separated too" in shown.err and other.read_bytes() == before
    assert shown.out.startswith(f"{other}\t")


def test_outputs_within_the_folder_that_is_searched_are_not_separated_again(runs, mixtures, capsys):
    out = mixtures / "out"
    assert command(runs, mixtures, "--output_folder", out) == 0
    first = capsys.readouterr().out
    assert command(runs, mixtures, "--output_folder", out, "--overwrite") == 0
    assert capsys.readouterr().out == first
    assert command(runs, mixtures, "--output_folder", mixtures) == 2
    assert "is the folder that is searched" in capsys.readouterr().err


def test_bad_files_are_named_at_the_end_and_leave_nothing_behind(runs, mixtures, tmp_path, capsys):
    sound = np.zeros(70000, "float32")
    sound[-1] = np.nan
    soundfile.write(tmp_path / "nan.wav", sound, RATE, "FLOAT")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    (tmp_path / "empty").mkdir()
    cut_off = (mixtures / "deep/er/b.flac").read_bytes()[:40]
    (tmp_path / "cut.flac").write_bytes(cut_off)
    reasons = {
        "nan.wav": "holds samples that are not finite numbers",
        "none.wav": "holds no samples",
        "missing.wav": "no such file",
        "in/notes.txt": "cannot be read as audio",
        "cut.flac": "",
        "empty": "a folder in which there is no audio file",
    }
    inputs = [tmp_path / name for name in reasons]
    out = tmp_path / "out"
    assert command(runs, *inputs, mixtures / "a.wav", "--output_folder", out) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{mixtures / 'a.wav'}\t") and shown.out.count("\n") == 1
    assert "6 files were not separated:" in shown.err
    lines = shown.err.splitlines()
    for name, reason in reasons.items():
        (line,) = [line for line in lines if f"{tmp_path / name}: " in line]
        assert reason in line
    written = sorted(one.relative_to(out).as_posix() for one in out.rglob("*.*"))
    assert written == ["in/a_s1.wav", "in/a_s2.wav"]


def test_a_published_folder_is_separated_with_as_a_run_is(mixtures, tmp_path, capsys):
    write_parts(tmp_path / "published", tiny("mambatasnet").state_dict())
    arguments = [str(tmp_path / "published"), str(mixtures / "a.wav"), "--keep_rate"]
    assert main(["separate", *arguments, "--output_folder", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "a_s2.wav").exists()


def test_mistakes_give_one_line_and_status_two(runs, mixtures, tmp_path, capsys):
    out = ["--output_folder", tmp_path / "out"]
    for arguments in (
        [mixtures / "a.wav", *out, "--window_seconds", "2", "--overlap_seconds", "2"],
        [mixtures / "a.wav", *out, "--window_seconds", "0.002", "--overlap_seconds", "0"],
    ):
        assert command(runs, *arguments) == 2
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1 and "window" in shown
    assert main(["separate", str(tmp_path / "none"), "a.wav", "--output_folder", "out"]) == 2
    assert "none: no such folder" in capsys.readouterr().err
    for wrong in (["--level", "loud"], ["--window_seconds", "-1"], ["--overlap_seconds", "-1"]):
        with pytest.raises(SystemExit):
            command(runs, mixtures / "a.wav", *out, *wrong)
        assert wrong[0] in capsys.readouterr().err


def test_the_rows_of_a_list_are_separated_under_their_ids_or_times(
    runs, mixtures, tmp_path, capsys
):
    sound, _ = soundfile.read(mixtures / "a.wav", dtype="int16")
    half = len(sound) // 2
    soundfile.write(tmp_path / "half.wav", sound[half:], RATE)
    span = f"{half / RATE},"
    rows = [f"in/a.wav,u1,{span}", f"in/a.wav,,{span}", "in/a.wav,u1,0,0.2", "in/a.wav,,,"]
    (tmp_path / "l.csv").write_text("path,id,start,end\n" + "\n".join(rows) + "\n")
    out = tmp_path / "out"
    inputs = [tmp_path / "half.wav", tmp_path / "l.csv"]
    assert command(runs, *inputs, "--output_folder", out, "--keep_rate") == 0
    written = sorted(one.relative_to(out).as_posix() for one in out.rglob("*_s1.wav"))
    time = f"{half / RATE:.2f}"
    expected = ["half", f"in/a_{time}-", "in/a", "u1", "u1~2"]
    assert written == sorted(f"{name}_s1.wav" for name in expected)
    heard = [soundfile.read(out / f"{name}_s1.wav")[0] for name in ("half", "u1")]
    np.testing.assert_array_equal(*heard)
    assert "a.wav:0.00-0.20\t" in capsys.readouterr().out
