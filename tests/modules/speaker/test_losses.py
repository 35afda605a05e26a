"""Losses of speakers as classes: the margin, sub-centres, weighted impostors, smoothed labels."""

import math

import pytest
import torch
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from torch.nn import functional as F

from modules.speaker.losses import SoftmaxClassifier, SpeakerClassifier


def example(**options):
    classifier = SpeakerClassifier(6, n_speakers=7, **options)
    return classifier, torch.randn(4, 6), torch.tensor([0, 3, 6, 3])


def test_the_loss_is_that_of_speechbrain_on_the_same_cosines():
    classifier, embeddings, targets = example(margin=0.3, scale=20.0)
    loss, logits = classifier(embeddings, targets)
    wrapper = LogSoftmaxWrapper(AdditiveAngularMargin(margin=0.3, scale=20.0))
    cosines = F.normalize(embeddings, dim=1) @ F.normalize(classifier.centres[:, 0], dim=1).T
    assert torch.allclose(logits, 20 * cosines, atol=1e-5)
    wanted = wrapper(cosines.unsqueeze(1), targets.unsqueeze(1))
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_there_is_no_margin_and_no_weight_in_evaluation_mode():
    classifier, embeddings, targets = example(margin=0.3, hard_impostors=2, hard_weight=10.0)
    trained, logits = classifier(embeddings, targets)
    loss, same = classifier.eval()(embeddings, targets)
    assert torch.equal(logits, same) and loss < trained
    assert torch.equal(loss, F.cross_entropy(logits, targets))


def test_the_hardest_impostors_weigh_as_much_as_so_many_copies():
    classifier, embeddings, targets = example(margin=0.0, hard_impostors=2, hard_weight=10.0)
    loss, logits = classifier(embeddings, targets)
    expected = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        impostors = sorted((one for i, one in enumerate(row) if i != target), reverse=True)
        weights = [10, 10, *[1] * 4]
        total = sum(w * math.exp(one) for w, one in zip(weights, impostors, strict=True))
        expected.append(math.log(math.exp(row[target]) + total) - row[target])
    assert loss.item() == pytest.approx(sum(expected) / 4, rel=1e-4)


def test_of_sub_centres_the_nearest_counts():
    classifier, embeddings, _ = example(sub_centres=3)
    with torch.no_grad():
        classifier.centres[2, 1] = embeddings[0]
    assert classifier.cosines(embeddings)[0, 2].item() == pytest.approx(1.0, abs=1e-5)


def test_a_larger_margin_set_later_makes_the_loss_larger():
    classifier, embeddings, targets = example(margin=0.2)
    before, _ = classifier(embeddings, targets)
    classifier.margin = 0.5
    assert classifier(embeddings, targets)[0] > before


@pytest.mark.parametrize(
    "options, message",
    [
        ({"margin": 2.0}, "margin must be from 0"),
        ({"sub_centres": 0}, "sub_centres must be 1 or more"),
        ({"scale": 0}, "scale above 0"),
        ({"hard_impostors": -1}, "hard_impostors must be 0 or more"),
        ({"hard_weight": 0.5}, "hard_weight 1 or more"),
    ],
    ids=str,
)
def test_an_option_out_of_its_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        example(**options)


def test_labels_are_smoothed_while_training_alone():
    classifier = SoftmaxClassifier(6, 7, label_smoothing=0.1)
    embeddings, targets = torch.randn(4, 6), torch.tensor([0, 3, 6, 3])
    loss, logits = classifier(embeddings, targets)
    assert torch.equal(loss, F.cross_entropy(logits, targets, label_smoothing=0.1))
    assert torch.equal(classifier.eval()(embeddings, targets)[0], F.cross_entropy(logits, targets))
    with pytest.raises(ValueError, match="label_smoothing must be from 0"):
        SoftmaxClassifier(6, 7, label_smoothing=1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_are_finite_where_an_embedding_lies_on_a_centre_or_opposite(dtype):
    classifier, embeddings, targets = example(margin=0.5, hard_impostors=2, hard_weight=10.0)
    with torch.no_grad():
        embeddings[0], embeddings[1] = classifier.centres[0, 0], -classifier.centres[3, 0]
        embeddings[2] = 0
    embeddings = embeddings.to(dtype).requires_grad_()
    loss, _ = classifier(embeddings, targets)
    loss.backward()
    assert loss.isfinite() and embeddings.grad.isfinite().all()
    assert classifier.centres.grad.isfinite().all()


def test_more_hard_impostors_than_there_are_impostors_are_all_of_them():
    torch.manual_seed(8)
    classifier = SpeakerClassifier(6, 3, hard_impostors=5, hard_weight=10.0)
    loss, _ = classifier(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))
    alone, _ = SpeakerClassifier(6, 1, hard_impostors=5, hard_weight=10.0)(
        torch.randn(2, 6), torch.tensor([0, 0])
    )
    assert loss.isfinite() and alone == 0
