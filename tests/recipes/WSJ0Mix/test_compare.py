"""compare.py and the bootstrap under it: what they read, which runs they choose, and how sure they are."""

import csv
import importlib.util
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from mamba_speech.evaluation.speaker_bootstrap import mean_with_interval, paired_difference

RECIPE = Path(__file__).parents[3] / "recipes" / "WSJ0Mix" / "separation"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("compare_separation", RECIPE / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_run(folder, gains, validation=(1.0, 2.0), lr=0.001, seed=1):
    """What train.py leaves of a run whose test mixtures gained so much."""
    folder.mkdir(parents=True)
    (folder / "hyperparams.yaml").write_text(f"output_folder: {folder}\nlr: {lr}\n")
    line = "epoch: {}, lr: 1.0e-03, steps: 5 - train loss: -1.0, train seconds: 30 - valid si-snr_i: {}\n"
    lines = [line.format(number, value) for number, value in enumerate(validation, start=1)]
    (folder / "train_log.txt").write_text("".join(lines))
    result = {"parameters": 1234, "fidelity": "corrected", "seed": seed, "device": "cpu"}
    result |= {"optimizer_steps": 10, "train_seconds": 60.0}
    (folder / "results.json").write_text(json.dumps({"test": result}))
    with open(folder / "test_results.csv", "w", newline="") as file:
        rows = [(f"m{number}", gain, gain - 1, gain) for number, gain in enumerate(gains)]
        rows.append(("avg", *[np.mean(gains)] * 3))
        csv.writer(file).writerows([("snt_id", "sdr_i", "si-snr", "si-snr_i"), *rows])
    return str(folder)


def write_list(path, mixtures):
    """A mixing list of so many mixtures of five speakers."""
    header = "mix_id,spk1,s1_wavs,s1_gain_db,spk2,s2_wavs,s2_gain_db\n"
    speakers = [(n % 5, (n + 1 + n // 5 % 3) % 5) for n in range(mixtures)]
    rows = [f"m{n},{a},{a}.wav,0,{b},{b}.wav,0\n" for n, (a, b) in enumerate(speakers)]
    path.write_text(header + "".join(rows))
    return str(path)


def test_of_several_learning_rates_that_of_the_best_validation_is_compared(script, tmp_path):
    low = write_run(tmp_path / "low", [9.0] * 6, validation=(1.0, 2.0), lr=0.001)
    high = write_run(tmp_path / "high", [3.0] * 6, validation=(2.5, 1.5), lr=0.01)
    other = write_run(tmp_path / "other", [5.0] * 6)
    out = tmp_path / "out"
    arguments = [f"a={low},{high}", f"b={other}", "--out", str(out), "--resamples", "50"]
    assert script.main(arguments) == 0
    first, second = json.loads((out / "compare.json").read_text())["rows"]
    assert first["lr"] == 0.01 and first["si-snr_i"]["mean"] == 3 and first["rates_tried"] == 2
    assert second["difference"]["difference"] == pytest.approx(2)
    table = json.loads((out / "measured.json").read_text())
    assert list(table[0]) == list(table[1])
    assert table[1]["difference, dB"].startswith("+2.00 (+2.00 to +2.00), p ")
    tried = json.loads((out / "measured_rates.json").read_text())
    assert [line["learning rate"] for line in tried] == ["0.001", "0.01", "0.001"]
    assert matplotlib.image.imread(out / "validation.png")[..., :3].std() > 0.02


def test_seeds_are_averaged_by_mixture_and_do_not_feign_more_mixtures(script, tmp_path):
    gains = np.random.default_rng(0).normal(5, 2, 20).round(3)
    one = write_run(tmp_path / "one", gains, seed=1)
    two = write_run(tmp_path / "two", gains + 2, seed=2)
    rows = script.compare({"once": [script.Run.read(one)], "twice": [script.Run.read(one)] * 2})
    assert rows[0]["si-snr_i"] == pytest.approx(rows[1]["si-snr_i"])
    both = script.compare({"both": [script.Run.read(one), script.Run.read(two)]})[0]
    assert both["si-snr_i"]["mean"] == pytest.approx(gains.mean() + 1) and both["seeds"] == [1, 2]


def test_with_a_list_the_interval_is_over_speakers(script, tmp_path):
    # the first mixtures of the list share their speakers: their gain is the speakers' own
    gains = [(n % 5) + (n + 1 + n // 5 % 3) % 5 for n in range(30)]
    run, listed = write_run(tmp_path / "run", gains), write_list(tmp_path / "tt.csv", 30)
    widths = []
    for more in ([], ["--list", listed]):
        assert script.main([f"a={run}", "--out", str(tmp_path / "out"), *more]) == 0
        written = json.loads((tmp_path / "out" / "compare.json").read_text())
        assert written["draw"] == ("speakers" if more else "mixtures")
        gain = written["rows"][0]["si-snr_i"]
        widths.append(gain["high"] - gain["low"])
    assert widths[1] > 1.5 * widths[0]
    assert script.main([f"a={run}", "--list", write_list(tmp_path / "few.csv", 9)]) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("test_results.csv", None, "test_results.csv: no such file; the test stage"),
        ("test_results.csv", "snt_id,si-snr_i\nm0,1\nm0,2\n", "m0 stands there twice"),
        ("test_results.csv", "snt_id,si-snr_i\nm0,much\n", "line 2 is no mixture: m0,much"),
        ("test_results.csv", "snt_id,si-snr_i\navg,1\n", "holds no mixture"),
        ("test_results.csv", "snt_id,si-snr_i\nm9,1\n", "not tested on the same recordings"),
        ("train_log.txt", "epoch: 1, lr: 1 - valid WER: 3\n", "is not of a separation run"),
        ("results.json", None, "results.json: no such file; the test stage"),
        ("results.json", "{}", "results.json: tells of no test"),
        ("hyperparams.yaml", None, "is not the output folder of a run"),
    ],
)
def test_a_damaged_or_foreign_run_is_one_sentence(script, tmp_path, capsys, name, text, message):
    good, bad = (write_run(tmp_path / which, [1.0, 2.0]) for which in ("good", "bad"))
    path = tmp_path / "bad" / name
    path.unlink() if text is None else path.write_text(text)
    assert script.main([f"a={good}", f"b={bad}", "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_where_speakers_differ_only_the_interval_over_speakers_holds_the_truth():
    truth_held = {"speakers": 0, "mixtures": 0}
    for trial in range(60):
        random = np.random.default_rng(trial)
        effects = random.normal(0, 1, 14)
        values, speakers = {}, {}
        for mixture in range(30):
            first, second = random.choice(14, 2, replace=False)
            values[str(mixture)] = effects[first] + effects[second]
            speakers[str(mixture)] = (str(first), str(second))
        for name, drawn in (("speakers", speakers), ("mixtures", None)):
            found = mean_with_interval(values, drawn, resamples=300)
            truth_held[name] += found.low <= 0 <= found.high
    assert truth_held["speakers"] >= 52
    assert truth_held["mixtures"] <= 48


def test_equal_systems_do_not_differ_and_the_sign_is_that_of_the_second():
    values = {str(n): float(n % 7) for n in range(50)}
    same = paired_difference(values, values, resamples=200)
    assert same.difference == same.low == same.high == 0 and same.p == 1
    worse = paired_difference(values, {n: v - 1 - v / 9 for n, v in values.items()})
    assert worse.high < 0 and worse.p < 0.001
    with pytest.raises(ValueError, match="not tested on the same recordings: 49"):
        paired_difference(values, {n: v for n, v in values.items() if n != "49"})
    with pytest.raises(ValueError, match="who is heard in 1 is not known, nor in 48 more"):
        mean_with_interval(values, {"0": ("anna",)})
