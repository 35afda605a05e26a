"""Students: the layout of their teacher, any length or one, padding, and their distance from hidden states."""

import pytest
import torch
from torch.nn import functional as F

from modules.speaker.distillation import HiddenDistance, copy_front_end
from modules.speaker.layers import LAYERS
from modules.speaker.losses import SpeakerClassifier
from modules.speaker.self_supervised import SelfSupervised
from modules.speaker.student import Student
from tests.support.speaker_networks import TEACHERS, largest_shift

CONFIG = TEACHERS["wavlm-layer"]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_student_has_the_layout_of_its_teacher(layer):
    student = Student(CONFIG, layer=layer, back_end="linear", crop_seconds=0.5).eval()
    teacher = SelfSupervised(CONFIG, layer="last").eval()
    copy_front_end(student, teacher)
    wavs = torch.randn(2, 8000)
    embeddings, hidden, lengths = student(wavs, return_hidden=True)
    wanted, counts = teacher.hidden_states(wavs)
    assert [one.shape for one in hidden] == [one.shape for one in wanted]
    assert torch.equal(lengths, counts) and embeddings.shape == (2, 192)
    assert torch.equal(student.front_end(wavs)[0], teacher.network.feature_extractor(wavs)[0])


@pytest.mark.parametrize("back_end", ["linear", "ecapa", "redimnet"])
@pytest.mark.parametrize("layer", ["transformer", "bimamba", "cycle_mlp"])
def test_a_padded_batch_equals_each_utterance_alone(layer, back_end):
    options = {"linear": {}, "ecapa": {"channels": 16}, "redimnet": {"size": "b0"}}[back_end]
    student = Student(CONFIG, layer, back_end, embedding_size=8, back_end_options=options)
    assert largest_shift(student.double(), pairs=5, longest=9000) < 1e-6


@pytest.mark.parametrize("layer", ["sv_mixer", "mlp_mixer", "conv_mixer"])
def test_layers_that_mix_frames_take_crops_alone(layer):
    student = Student(CONFIG, layer, "linear", crop_seconds=0.5)
    assert student.crop_samples == student.min_samples == 8000
    with pytest.raises(ValueError, match="too short"):
        student(torch.randn(2, 7000))
    # 8010 samples give as many frames as 8000
    for longer in (8010, 9000):
        with pytest.raises(ValueError, match=f"exactly 8000 samples; got {longer}"):
            student(torch.randn(2, longer))


def test_convolutions_of_another_width_than_the_teachers_are_refused():
    student = Student(CONFIG | {"conv_dim": [6] * 7}, "bimamba", "linear")
    with pytest.raises(ValueError, match="convolutions are not its teacher's: build it from"):
        copy_front_end(student, SelfSupervised(CONFIG, layer="last"))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_step_under_a_teacher_brings_a_student_nearer_to_teacher_and_speakers(layer):
    torch.manual_seed(7)
    teacher = SelfSupervised(CONFIG, layer="last").eval()
    student = Student(CONFIG, layer, "linear", crop_seconds=0.5, embedding_size=8)
    copy_front_end(student, teacher)
    classifier, distance = (
        SpeakerClassifier(8, 4, hard_impostors=2, hard_weight=10.0),
        HiddenDistance(CONFIG),
    )
    wavs, speakers = torch.randn(4, 8000), torch.arange(4)
    with torch.no_grad():
        wanted, lengths = teacher.hidden_states(wavs)

    def loss():
        embeddings, hidden, _ = student(wavs, return_hidden=True)
        return classifier(embeddings, speakers)[0] + distance(hidden, wanted, lengths)

    optimiser = torch.optim.SGD([*student.parameters(), *classifier.parameters()], lr=1e-3)
    before = loss()
    before.backward()
    optimiser.step()
    assert loss() < before


def test_the_distance_is_the_mean_over_layers_and_valid_frames():
    hidden, wanted = ([torch.randn(2, 5, 16) for _ in range(4)] for _ in range(2))
    lengths = torch.tensor([5, 3])
    valid = torch.arange(5) < lengths[:, None]
    expected = [F.mse_loss(a[valid], b[valid]) for a, b in zip(hidden[1:], wanted[1:], strict=True)]
    distance = HiddenDistance(CONFIG)
    found = distance(hidden, wanted, lengths)
    assert torch.isclose(found, sum(expected) / 3) and not list(distance.parameters())
    hidden[2][1, 3:] = 9
    assert torch.equal(distance(hidden, wanted, lengths), found)


def test_a_student_of_fewer_layers_predicts_layers_up_to_the_last():
    distance = HiddenDistance(CONFIG | {"num_hidden_layers": 24}, d_model=8, n_layers=6, n_heads=3)
    assert distance.predicted == [8, 16, 24]
    hidden = [torch.randn(2, 5, 8, requires_grad=True) for _ in range(7)]
    wanted = [torch.randn(2, 5, 16) for _ in range(25)]
    loss = distance(hidden, wanted, torch.tensor([5, 3]))
    (gradient,) = torch.autograd.grad(loss, hidden[-1])
    assert gradient[0].abs().min() > 0 and not gradient[1, 3:].any()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Student(CONFIG, layer="no"), "layer must be one of sv_mixer"),
        (lambda: Student(CONFIG, back_end="no"), "back_end must be one of linear"),
        (lambda: Student({"conv_dim": [8] * 7}), "d_model is not given"),
        (lambda: Student(CONFIG, n_layers=0), "n_layers must be 1 or more"),
        (lambda: HiddenDistance(CONFIG, n_layers=4), "at most the teacher's 3"),
        (lambda: HiddenDistance(CONFIG, n_layers=1, n_heads=0), "n_heads must be from 1"),
    ],
    ids=range(6),
)
def test_wrong_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
