"""What the recognition and the language recipes say as they run, and that the command they end with works."""

import pytest

from mamba_speech.synthetic import warning_for
from tests.support.recipes import as_arguments, check_output, next_command, run_pasted, run_script
from tests.support.recognition import RECIPE, SPLITS
from training.results import read_results, read_rows


@pytest.mark.exhaustive
def test_a_recogniser_and_its_language_model_say_what_is_worth_saying_and_what_to_do_with_them(
    train_s2s, spoken, tmp_path, monkeypatch
):
    # an earlier training in this process has left its own there
    monkeypatch.delenv("SB_LOG_LEVEL", raising=False)
    recogniser, lm = tmp_path / "a recogniser", tmp_path / "a language model"
    options = SPLITS | {"data_folder": spoken, "output_folder": recogniser, "number_of_epochs": 1}
    output = train_s2s("conmamba_debug", **options).output
    check_output(output, recogniser)
    transcribed = run_pasted(output, RECIPE)
    assert transcribed.returncode == 0 and transcribed.stderr.count("\n") == 1, transcribed.stderr
    assert transcribed.stderr.endswith(": " + warning_for(recogniser) + "\n")
    assert read_results(recogniser).training.synthetic is True

    output = train_lm(
        recogniser, lm, pretrained_tokenizer_file=recogniser / "save" / "tokenizer.model"
    )
    check_output(output, lm)
    tested = run_pasted(output, RECIPE)
    assert tested.returncode == 0, tested.stderr[-3000:]
    assert set(read_rows(recogniser)) == {"test-spoken", "test-spoken_lm"}

    # without a recogniser, one is to be trained
    output = train_lm(recogniser, tmp_path / "another", output_neurons=30)
    assert next_command(output)[1:] == [
        "train_S2S.py",
        "hparams/S2S/conmamba_mini.yaml",
        "--data_folder",
        "LIBRISPEECH",
        "--output_neurons",
        "30",
        "--pretrained_lm_tokenizer_path",
        str(tmp_path / "another"),
    ]


def train_lm(recogniser, folder, **options):
    """Run train_LM.py on the transcripts that a recogniser's run was given; gives what it printed."""
    lines = (recogniser / "train.csv").read_text(encoding="utf-8").splitlines()[1:]
    text = folder.with_suffix(".txt")
    text.write_text("\n".join(line.rpartition(",")[2] for line in lines), encoding="utf-8")
    options |= {"text_files": f"['{text}']", "valid_text": text, "number_of_epochs": 1}
    arguments = as_arguments(options | {"output_folder": folder})
    yaml = "hparams/LM/mamba_debug.yaml"
    return run_script(RECIPE, "train_LM.py", yaml, "--noprogressbar", *arguments).output
