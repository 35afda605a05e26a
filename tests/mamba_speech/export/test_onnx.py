"""`--format onnx`: onnxruntime gives what the run gives, at any length, and without PyTorch."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from mamba_speech.asr.recognizer import Recognizer
from mamba_speech.export import export_run
from mamba_speech.export.onnx import MODEL_FILE, QUANTIZED_FILE
from mamba_speech.export.waveform_runs import waveform_run
from mamba_speech.kws.spotter import KeywordSpotter
from tests.support.recipes import ROOT
from tests.support.run_folders import call

RATE = 16000
# none of them is the exported example's
LENGTHS = (1024, 5000, 16000, 33333, 70001)
# a process that cannot import PyTorch or this project
ALONE = """
import runpy, sys
sys.modules.update(dict.fromkeys(("torch", "mamba_speech", "modules", "speechbrain")))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_example(name, folder, *recordings):
    command = [sys.executable, "-c", ALONE, ROOT / "examples" / name, folder, *recordings]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def noise(*lengths):
    """Clips as a padded batch with something behind their ends, their counts, and the clips."""
    clips = [0.1 * torch.randn(length) for length in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=0.5)
    return {"waveform": batch.numpy(), "samples": np.array(lengths)}, clips


@pytest.fixture(scope="module")
def session():
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    return lambda path: onnxruntime.InferenceSession(str(path))


@pytest.fixture(scope="module")
def keywords(runs, tmp_path_factory):
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("onnx") / "keywords"
    export_run(runs["keywords"], folder, "onnx", quantize="int8")
    return folder


@pytest.fixture(scope="module")
def recognizer(runs, tmp_path_factory):
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("onnx") / "ctc"
    export_run(runs["ctc"], folder, "onnx", opset=21)
    return folder


def test_an_onnx_keyword_model_gives_the_spotters_probabilities(runs, keywords, session):
    spotter, model = KeywordSpotter.load(runs["keywords"], "cpu"), session(keywords / MODEL_FILE)
    for lengths in [[one] for one in LENGTHS] + [[16000, 900, 24000], [3, 5000]]:
        feed, clips = noise(*lengths)
        found = torch.from_numpy(model.run(None, feed)[0])
        assert torch.allclose(found.exp(), spotter.class_probabilities(clips), atol=1e-4)
        for clip, one in zip(clips, found, strict=True):
            alone = spotter.class_probabilities([clip])[0].log()
            assert torch.allclose(one, alone, atol=1e-4)


def test_an_onnx_keyword_folder_runs_without_pytorch(runs, keywords, tmp_path):
    spotter = KeywordSpotter.load(runs["keywords"], "cpu")
    assert json.loads((keywords / "labels.json").read_text()) == spotter.labels
    files = []
    for length in (500, 20000):
        files.append(tmp_path / f"{length}.wav")
        soundfile.write(files[-1], noise(length)[1][0].numpy(), RATE, "FLOAT")
    said = run_example("onnx_keywords.py", keywords, *files)
    for file, line in zip(files, said, strict=True):
        result = spotter.classify(file)
        label, probability = line.removeprefix(f"{file}: ").split()
        assert label == result.label and abs(float(probability) - result.confidence) < 1e-3


def test_int8_weights_change_the_outputs_little(keywords, session):
    feed, _ = noise(16000, 9000)
    one, other = (
        session(keywords / name).run(None, feed)[0] for name in (MODEL_FILE, QUANTIZED_FILE)
    )
    assert 0 < np.abs(one - other).max() < 0.2


def test_int8_leaves_the_features_alone(keywords):
    onnx = pytest.importorskip("onnx")
    kinds = {
        node.op_type
        for node in onnx.load(keywords / QUANTIZED_FILE).graph.node
        if any("'compute_features" in one.value for one in node.metadata_props)
    }
    assert "MatMul" in kinds and not any("Quant" in kind or "Integer" in kind for kind in kinds)


@pytest.mark.exhaustive
def test_an_onnx_recogniser_gives_the_runs_log_probabilities(runs, recognizer, session):
    model = session(recognizer / MODEL_FILE)
    network = waveform_run(runs["ctc"]).network
    for lengths in [[one + 300] for one in LENGTHS] + [[16000, 900, 24000], [3, 5000]]:
        feed, clips = noise(*lengths)
        log_probs, frames = model.run(None, feed)
        for clip, one, count in zip(clips, log_probs, frames, strict=True):
            # alone in its batch, padded only to the least that the convolutions take
            with torch.no_grad():
                wanted, known = network(
                    torch.nn.functional.pad(clip, (0, max(0, 1280 - len(clip))))[None],
                    torch.tensor([len(clip)]),
                )
            assert count == known[0]
            assert torch.allclose(torch.from_numpy(one[:count]), wanted[0, :count], atol=1e-4)


@pytest.mark.exhaustive
def test_an_onnx_recogniser_transcribes_without_pytorch(runs, recognizer, tmp_path):
    file = tmp_path / "speech.wav"
    soundfile.write(file, noise(30000)[1][0].numpy(), RATE, "FLOAT")
    (said,) = run_example("onnx_transcribe.py", recognizer, file)
    text = Recognizer.load(runs["ctc"], "cpu").transcribe(file).text
    assert said.removeprefix(f"{file}:").strip() == text
    lines = (recognizer / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "<blk> 0" and [line.split(" ")[1] for line in lines] == [
        str(number) for number in range(len(lines))
    ]


def test_what_onnx_does_not_take_is_refused_in_one_sentence(runs, tmp_path):
    def refusal(name, *options):
        status, out, err = call(["export", runs[name], tmp_path / "new", *options])
        assert status == 2 and not out and err.count("\n") == 1
        assert not list(tmp_path.iterdir())
        return err

    assert "opset must be from 20 to 23; got 11" in refusal(
        "keywords", "--format", "onnx", "--opset", 11
    )
    assert "is a run of the task" in refusal("speakers", "--format", "onnx")
    assert "has a decoder" in refusal("s2s", "--format", "onnx")
    assert "quantize is no option of --format speechbrain" in refusal(
        "keywords", "--quantize", "int8"
    )


def test_a_missing_extra_is_named(runs, tmp_path):
    code = (
        "import sys; sys.modules['onnxscript'] = None\n"
        "from mamba_speech.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    arguments = ["export", runs["keywords"], tmp_path / "new", "--format", "onnx"]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2 and "pip install 'mamba-speech[export]'" in done.stderr
    assert not list(tmp_path.iterdir())
