"""Recognition with an S2S run of either decoder: batches, language models, CTC alone, and the command's options."""

import json
import shutil

import pytest

from mamba_speech.asr.recognizer import Recognizer
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.cli import main
from mamba_speech.run import read_options
from tests.support.recognition import LM_SIZES


@pytest.fixture(scope="module")
def recognizer(s2s):
    return Recognizer.load(s2s, device="cpu")


@pytest.fixture(scope="module")
def files(audio):
    return sorted(audio.glob("*.wav"))


def texts(recognizer, paths, **options):
    return [result.text for result in recognizer.transcribe(paths, **options)]


def with_option(run, key, value):
    """Change a key of a run's YAML."""
    file = run / "hyperparams.yaml"
    lines = file.read_text().splitlines()
    (index,) = [i for i, line in enumerate(lines) if line.startswith(f"{key}:")]
    lines[index] = f"{key}: {value}"
    file.write_text("\n".join(lines) + "\n")


def with_lm(run, source):
    """Let a run have been tested with a language model."""
    with_option(run, "pretrained_lm_tokenizer_path", source)
    for key, value in LM_SIZES.items():
        with_option(run, key, value)
    return run


def test_a_padded_batch_gives_what_each_file_gives_alone(recognizer, files):
    together = texts(recognizer, files, batch_seconds=1e9)
    assert together == [texts(recognizer, [file])[0] for file in files]
    assert len(set(together)) > 1 and all(together)


def test_upstream_takes_files_one_at_a_time(s2s_run, files):
    with_option(s2s_run, "fidelity", "upstream")
    file = s2s_run / "hyperparams.yaml"
    file.write_text(file.read_text().replace("fidelity: corrected", "fidelity: upstream"))
    recognizer = Recognizer.load(s2s_run, device="cpu")
    assert recognizer.model.fidelity == "upstream"
    assert texts(recognizer, files[:4]) == [texts(recognizer, [file])[0] for file in files[:4]]


def test_a_moved_run_recognises_as_before(recognizer, s2s_run, files):
    moved = Recognizer.load(s2s_run, device="cpu")
    assert texts(moved, files[:3]) == texts(recognizer, files[:3])


@pytest.mark.parametrize("kind", ["pretrained_lm", "lm_run"])
def test_the_runs_language_model_is_used_unless_another_or_none_is_wanted(
    kind, s2s_run, files, request, recognizer
):
    lm = request.getfixturevalue(kind)
    with_lm(s2s_run, lm)
    with_option(s2s_run, "lm_weight", 5.0)
    own = texts(Recognizer.load(s2s_run, device="cpu"), files[:4])
    without = texts(Recognizer.load(s2s_run, device="cpu", no_lm=True), files[:4])
    assert own != without == texts(recognizer, files[:4])
    with_option(s2s_run, "no_lm", True)
    assert texts(Recognizer.load(s2s_run, device="cpu"), files[:4]) == without
    assert texts(Recognizer.load(s2s_run, device="cpu", lm=lm), files[:4]) == own


def test_a_language_model_that_is_gone_is_named_with_what_to_do(s2s_run, lm_run, tmp_path, files):
    gone = shutil.copytree(lm_run, tmp_path / "gone")
    with_lm(s2s_run, gone)
    shutil.rmtree(gone)
    message = f"moved run: the language model .*give --lm FOLDER, or --no_lm to go .*{gone}"
    with pytest.raises(FileNotFoundError, match=message):
        Recognizer.load(s2s_run, device="cpu")
    assert texts(Recognizer.load(s2s_run, device="cpu", no_lm=True), files[:1])
    assert texts(Recognizer.load(s2s_run, device="cpu", lm=lm_run), files[:1])


def test_a_language_model_recorded_by_a_relative_path_is_found_from_anywhere(
    s2s_run, pretrained_lm, tmp_path, files, monkeypatch, recognizer
):
    """Training was started in the folder that the run and the model are named from."""
    started = tmp_path / "where training was started"
    run = shutil.copytree(s2s_run, started / "results" / "s2s")
    shutil.copytree(pretrained_lm, started / "results" / "lm")
    yaml = run / "hyperparams.yaml"
    yaml.write_text(yaml.read_text().replace(read_options(run, [])["output_folder"], "results/s2s"))
    with_option(with_lm(run, "results/lm"), "lm_weight", 5.0)
    wanted = texts(Recognizer.load(run, device="cpu", lm=pretrained_lm), files[:2])
    for folder, source in ((tmp_path, run), (started / "results", "s2s")):
        monkeypatch.chdir(folder)
        assert texts(Recognizer.load(source, device="cpu"), files[:2]) == wanted
    assert wanted != texts(recognizer, files[:2])


def test_a_language_model_of_another_tokenizer_is_refused(s2s_run, pretrained_lm, tmp_path):
    other = shutil.copytree(pretrained_lm, tmp_path / "other")
    Tokenizer.train(["five six"], other / "tokenizer.ckpt", "char", size=40)
    with_lm(s2s_run, pretrained_lm)
    with pytest.raises(ValueError, match="other: the language model has another tokenizer"):
        Recognizer.load(s2s_run, device="cpu", lm=other)


def test_a_tokenizer_of_another_size_than_the_output_layer_is_refused(s2s_run):
    Tokenizer.train(["five six"], s2s_run / "save" / "tokenizer.model", "char", size=40)
    with pytest.raises(
        ValueError, match=r"moved run: its tokenizer_file holds \d+ tokens, but its model"
    ):
        Recognizer.load(s2s_run, device="cpu")


def test_a_file_that_is_too_long_for_the_model_costs_no_other_its_text(s2s_run, files):
    # every frame may be a token, and no hypothesis ends of itself
    with_option(s2s_run, "max_decode_ratio", 1.0)
    patient = Recognizer.load(s2s_run, device="cpu", beam_size=1)
    patient.model.seq_lin.w.bias[2] = -1e4
    table = patient.model.Transformer.positional_encoding_decoder
    table.pe = table.pe[:, :20]
    results = list(patient.transcribe([files[0], files[-1], files[1]], batch_seconds=1e9))
    assert [result.error is None for result in results] == [True, False, True]
    assert results[1].error.startswith(f"{files[-1]}: ") and "max_length: 20" in results[1].error


def test_the_ctc_output_alone_gives_the_text_of_the_alignment(s2s, files):
    recognizer = Recognizer.load(s2s, device="cpu", ctc_only=True)
    best = texts(recognizer, files)
    assert best == [recognizer.align(file).text for file in files]
    assert best == [texts(recognizer, [file])[0] for file in files]
    assert best != texts(Recognizer.load(s2s, device="cpu"), files)


def test_the_alignment_of_a_searched_run_is_that_of_its_ctc_output(recognizer, files):
    alignment = recognizer.align(files[-1])
    spelt = "".join(token for token, _, _ in alignment.tokens).replace("\u2581", " ")
    times = [time for _, start, end in alignment.tokens for time in (start, end)]
    assert spelt.strip() == alignment.text.strip() != ""
    assert times == sorted(times) and 0 <= times[0] and times[-1] <= alignment.seconds


def test_the_command_prints_a_json_object_a_line(s2s, files, capsys, recognizer):
    assert main(["transcribe", str(s2s), *map(str, files[:2]), "--device", "cpu", "--json"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["text"] for one in shown] == texts(recognizer, files[:2])
    assert [one["path"] for one in shown] == [str(file) for file in files[:2]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--decoding", "beam"], "is a run of train_S2S.py, for which there is no decoding"),
        (["--lm", "a", "--no_lm"], "lm and no_lm contradict one another"),
        (["--lm_weight", "1", "--no_lm"], "lm_weight and no_lm contradict one another"),
        (["--ctc_only", "--beam_size", "2"], "ctc_only takes the best path, without a search"),
        (["--ctc_only", "--lm", "a"], "ctc_only takes the best path, without a search"),
        (["--lm", "./nowhere"], "./nowhere: no such folder"),
    ],
)
def test_options_that_do_not_go_together_get_one_sentence(flags, message, s2s, files, capsys):
    assert main(["transcribe", str(s2s), str(files[0]), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--lm", "a", "--ctc_only"],
            "run of train_CTC.py, for which there is no ctc_only",
        ),
        (["--lm", "a", "--decoding", "greedy"], "lm needs decoding beam"),
        (["--lm", "./nowhere"], "./nowhere: no such folder"),
        (["--lm_weight", "1"], "lm_weight weighs a language model: give lm too"),
        (["--no_lm"], "is a run of train_CTC.py, for which there is no no_lm"),
        (["--beam_size", "2"], "beam_size needs decoding beam"),
    ],
)
def test_options_of_the_joint_search_are_refused_by_ctc_runs(
    flags, message, trained, files, capsys
):
    assert main(["transcribe", str(trained), str(files[0]), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
