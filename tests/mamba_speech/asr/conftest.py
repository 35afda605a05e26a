"""Streaming runs of random weights."""

import numpy as np
import pytest
import torch

from mamba_speech import StreamingRecognizer
from tests.support.checkpoints import save_again
from tests.support.recognition import read, write_run

# kind of run, its checkpoints' measure, and options: over chunks, and causal
RUNS = {
    "CTC": ("CTC", "WER", {"test_decoding": "greedy"}),
    "CTC, causal": ("CTC", "WER", {"test_decoding": "greedy", "causal": True}),
    "S2S": ("S2S", "token_error", {}),
    "S2S, Mamba": ("S2S", "token_error", {"decoder_module": "mamba"}),
}


@pytest.fixture(scope="module")
def make_run(letters, audio, tmp_path_factory):
    """The folder of a streaming run of random weights, by its name in RUNS.

    Its CTC output is zero for the mean frame, so that texts differ from recording to recording.
    """

    def make(name):
        kind, measure, options = RUNS[name]
        folder = tmp_path_factory.mktemp("streaming") / "run"
        yaml = f"{kind}/conmamba_streaming_debug.yaml"
        write_run(folder, yaml, letters[0], {measure: 1.0}, **options)
        recognizer = StreamingRecognizer.load(folder, device="cpu")
        context = recognizer.make_streaming_context()
        samples = np.concatenate([read(audio / f"{number}.wav") for number in range(8)])
        mean = recognizer.forward_streaming(samples, context).encoded.mean((0, 1))
        for file in folder.glob("save/CKPT*/model.ckpt"):
            weights = torch.load(file, weights_only=True)
            weights["ctc_lin.w.bias"].copy_(-weights["ctc_lin.w.weight"] @ mean)
            save_again(weights, file)
        return folder

    return make


@pytest.fixture(scope="module", params=RUNS)
def streaming_run(request, make_run):
    return make_run(request.param)


@pytest.fixture(scope="module")
def chunked_run(make_run):
    return make_run("CTC")
