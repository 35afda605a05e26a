"""Whatever is damaged in the folder of a run, a command says so in one sentence that names the folder, or works.

A table of mutations for the options of a run of every task, and for each of its other files. They are drawn from
seeds, so that a failure can be repeated.
"""

import contextlib
import json
import random
import resource
import shutil

import pytest
import yaml

from tests.support.run_folders import call, write_task_runs, write_voices

pytestmark = pytest.mark.exhaustive

TASKS = ("ctc", "s2s", "lm", "keywords", "speakers", "windows")
# values that have the wrong type, or are absurd
WRONG = ("null", "text", "''", "-1", "0", "1.5", ".nan", "1.0e+300", "[]", "[a, 1]", "{}", "{a: 1}")
WRONG += ("true", "1" + "0" * 30, "'\\0'", "2024-01-01", "*nothing", "!new:torch.nn.Linear [2, 2]")
WRONG += (
    "!new:os.system [ls]",
    "!!python/name:os.system",
    "!ref <seed>",
    "[[[[[[1]]]]]]",
    '"\\xff"',
)
# keys that loading reads; each gets every wrong value
READ = {
    "ctc": "avg_checkpoints checkpoint_choice compute_features fidelity model normalize output_folder sample_rate "
    "save_folder test_decoding tokenizer_file",
    "s2s": "ctc_weight_decode model max_decode_ratio output_folder test_beam_size tokenizer_file",
    "lm": "model tokenizer_file save_folder checkpoint_choice",
    "keywords": "causal clip_seconds compute_features labels_file model pad_clips sample_rate",
    "speakers": "model sample_rate threshold_file avg_checkpoints output_folder",
    "windows": "model sample_rate save_folder avg_checkpoints checkpoint_choice",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    found = write_task_runs(folder)
    found["voices"] = write_voices(folder / "voices")
    return found


@contextlib.contextmanager
def little_memory():
    """Two gigabytes more than now: absurd sizes fail here rather than in the machine's memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 2 * 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def use(task, folder, runs, out):
    """Use a run of a task by its command; gives status, stdout and stderr."""
    voice = runs["voices"][0]
    words = {
        "ctc": ["transcribe", folder, voice],
        "s2s": ["transcribe", folder, voice],
        "lm": ["transcribe", runs["s2s"], voice, "--lm", folder, "--beam_size", "1"],
        "keywords": ["spot", folder, voice],
        "speakers": ["verify", folder, voice, voice],
        "windows": ["separate", folder, voice, "--output_folder", out, "--overwrite"],
    }[task]
    with little_memory():
        return call(words)


def check(task, folder, runs, out, what):
    """A command works, or says in one short line what is wrong, and where."""
    status, _, err = use(task, folder, runs, out)
    assert status in (0, 1, 2), what
    if status == 0:
        return True
    lines = [line for line in err.splitlines() if line.strip()]
    assert "Traceback" not in err and len(lines) <= 3, (what, err)
    assert str(folder) in err or str(runs["voices"][0]) in err, (what, err)
    assert all(len(line) < 1500 for line in lines), (what, err)
    return False


def keys_of(text):
    """Top-level keys of a YAML."""
    return [key.value for key, _ in yaml.compose(text, Loader=yaml.SafeLoader).value]


def with_value(text, key, value):
    """The YAML with another value at a top-level key; None for without the key."""
    lines, kept, inside = text.splitlines(), [], False
    for line in lines:
        if line.startswith(f"{key}:"):
            inside = True
            if value is not None:
                kept.append(f"{key}: {value}")
        elif inside and (line.startswith((" ", "-")) or not line.strip()):
            continue
        else:
            inside = False
            kept.append(line)
    return "\n".join(kept) + "\n"


def broken_texts(text):
    """Names and contents of files that are hardly YAML."""
    data = text.encode()
    for tenth in range(10):
        place = len(data) * tenth // 10
        yield f"cut after {tenth} tenths", data[:place]
    draw = random.Random(text)
    for what in (b"\0", b"\0" * 100, b"\xff", b"[", b"\n\t", b": :", b"\n- 1\n", b"*a"):
        place = draw.randrange(len(data))
        yield f"{what} at {place}", data[:place] + what + data[place:]
    yield "zeros", bytes(len(data))
    for value in WRONG[::3]:
        yield f"only {value}", value.encode()
    yield "a list", b"- 1\n- 2\n"
    yield "nested", b"a: " + b"[" * 5000
    yield "nested and closed", b"model: " + b"[" * 3000 + b"]" * 3000
    yield "a circle", b"model: &a [*a]\noutput_folder: *a\n" + data
    yield "twice", data + data
    yield "two documents", data + b"---\n" + data
    yield "a byte order mark", b"\xef\xbb\xbf" + data
    yield "UTF-16", text.encode("utf-16")
    yield (
        "a billion laughs",
        b"a: &a [l,l,l,l]\n"
        + b"".join(b"%c: &%c [*%c,*%c,*%c,*%c]\n" % (i, i, *(i - 1,) * 4) for i in range(98, 110))
        + b"model: *m\n",
    )


@pytest.fixture
def copied(runs, tmp_path):
    """Gives a copy of a task's run."""
    return lambda task: shutil.copytree(runs[task], tmp_path / task)


@pytest.mark.parametrize("task", TASKS)
def test_options_that_are_hardly_yaml_give_one_sentence(task, runs, copied, tmp_path):
    folder = copied(task)
    file = folder / "hyperparams.yaml"
    for what, content in broken_texts(file.read_text()):
        file.write_bytes(content)
        check(task, folder, runs, tmp_path / "out", what)


@pytest.mark.parametrize("task, key", [(task, key) for task in TASKS for key in READ[task].split()])
def test_a_wrong_value_of_a_key_that_is_read_gives_one_sentence(task, key, runs, copied, tmp_path):
    folder = copied(task)
    file = folder / "hyperparams.yaml"
    text = file.read_text()
    assert key in keys_of(text)
    for value in (None, *random.Random(f"{task} {key}").sample(WRONG, 7)):
        file.write_text(with_value(text, key, value))
        check(task, folder, runs, tmp_path / "out", f"{key}: {value}")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("task", TASKS)
def test_wrong_values_anywhere_give_one_sentence(task, seed, runs, copied, tmp_path):
    folder, draw = copied(task), random.Random(f"{task}{seed}")
    file = folder / "hyperparams.yaml"
    lines = file.read_text().splitlines()
    # of networks first: their arguments are what loading reads
    start = next(
        i
        for i, line in enumerate(lines)
        if line.startswith(("compute_features", "model", "Encoder", "CNN", "front_end"))
    )
    for _ in range(16):
        place = draw.randrange(start, len(lines)) if draw.random() < 0.8 else draw.randrange(start)
        head, colon, _ = lines[place].partition(":")
        value = draw.choice(WRONG)
        changed = [*lines[:place], f"{head}{colon} {value}", *lines[place + 1 :]]
        file.write_text("\n".join(changed) + "\n")
        check(task, folder, runs, tmp_path / "out", f"line {place + 1}: {head}: {value}")


JSON = (
    "",
    "\0" * 40,
    "{",
    "[]",
    "{}",
    "null",
    "1",
    "true",
    '"text"',
    "[1, 2, 3]",
    "[null, [], {}]",
    "NaN",
    "[" * 9000,
)
JSON += (
    '{"threshold": "x"}',
    '{"threshold": NaN}',
    '{"threshold": 1e999}',
    '{"threshold": []}',
    '{"threshold": true}',
)
JSON += (
    '{"threshold": 0.5, "eer": "x", "list": 5, "trials": [], "speakers": {}}',
    '["no", "no", "no"]',
)
JSON += (
    '["_a", "_b", "_c"]',
    '["no", "yes", ""]',
    '["no", "y\\u0000", "\\ud800"]',
    "1" * 10000,
    '{"weights": 1}',
)


def damages(data):
    """What may become of a file's bytes."""
    draw = random.Random(len(data))
    yield "emptied", b""
    yield "zeroed", bytes(len(data))
    place = draw.randrange(len(data))
    yield f"cut at {place}", data[:place]
    yield f"zeros after {place}", data[:place] + bytes(len(data) - place)
    spoilt = bytearray(data)
    for _ in range(20):
        spoilt[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    yield "spoilt", bytes(spoilt)
    yield "text", b"no such thing\n"


NEEDED = (
    "model.ckpt",
    "normalizer.ckpt",
    "masknet.ckpt",
    "tokenizer.model",
    "labels.json",
    "CKPT.yaml",
)


def files_of(folder):
    """The files of a run but its options, without the changing names of checkpoints."""
    return sorted(
        (path.name, path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != "hyperparams.yaml"
    )


@pytest.mark.parametrize("task", TASKS)
def test_each_damaged_file_of_a_run_gives_one_sentence(task, runs, copied, tmp_path):
    folder = copied(task)
    for _, name in files_of(folder):
        file, noticed = folder / name, False
        data = file.read_bytes()
        texts = [(text[:30], text.encode()) for text in JSON] if file.suffix == ".json" else []
        if file.name == "CKPT.yaml":
            texts = [(text[:30], text.encode()) for text in WRONG]
            texts += [
                (one, one.encode()) for one in ("files: 5", "epoch: x\nWER: []", "unixtime: a")
            ]
            texts += [
                (f"{n}: {v}", data + f"\n{n}: {v}\n".encode())
                for n in ("WER", "loss", "EER", "error")
                for v in ("x", ".nan", "[]")
            ]
        for what, content in [*damages(data), *texts]:
            file.write_bytes(content)
            noticed |= not check(task, folder, runs, tmp_path / "out", f"{name} {what}")
        # of two checkpoints the other one serves; a run's other state is not read
        assert noticed or task == "speakers" or file.name not in NEEDED, name
        file.unlink()
        check(task, folder, runs, tmp_path / "out", f"{name} is gone")
        file.mkdir()
        check(task, folder, runs, tmp_path / "out", f"{name} is a folder")
        file.rmdir()
        file.symlink_to(file.name)
        check(task, folder, runs, tmp_path / "out", f"{name} is a link to itself")
        file.unlink()
        file.write_bytes(data)
    assert check(task, folder, runs, tmp_path / "out", "whole again")


DATABASE = {
    "format": ["5", "null", '"other"'],
    "weights": ["5", "null", "[]"],
    "threshold": ['"x"', "[]", "NaN", "5", "true", "-1e999"],
    "speakers": ["5", "null", "[]", "{}", '{"A": 1}', '{"A": {"sum": 1, "recordings": 2}}'],
    "sum": [
        "5",
        "null",
        "[]",
        '["x"]',
        "[NaN, 1, 1, 1, 1, 1]",
        "[1, 2]",
        "[[1]]",
        "{}",
        "[0, 0, 0, 0, 0, 0]",
        '"ab"',
        "[1e999]",
    ],
    "recordings": ["5", "null", '{"a": 1}', "[[], {}]", "[1]", '"ab"'],
}


@pytest.mark.parametrize("command", ["identify", "enroll"])
def test_a_damaged_database_gives_one_sentence(command, runs, tmp_path):
    run, voice, file = runs["speakers"], runs["voices"][0], tmp_path / "speakers.json"
    assert call(["enroll", run, "Ada", voice, "--database", file])[0] == 0
    data = file.read_bytes()
    content = json.loads(data)
    cases = [*damages(data), *((text[:20], text.encode()) for text in JSON)]
    for key, values in DATABASE.items():
        for value in values:
            changed = json.loads(data)
            inner = changed["speakers"]["Ada"] if key in content["speakers"]["Ada"] else changed
            inner[key] = "HERE"
            cases.append((f"{key}: {value}", json.dumps(changed).replace('"HERE"', value).encode()))
            del inner[key]
            cases.append((f"without {key}", json.dumps(changed).encode()))
    for what, damaged in cases:
        file.write_bytes(damaged)
        words = [command, run, *(["Grace"] if command == "enroll" else []), voice]
        status, _, err = call([*words, "--database", file])
        assert status in (0, 1, 2) and "Traceback" not in err, what
        assert status == 0 or str(file) in err, (what, err)
        if status:
            # what cannot be read is not replaced
            assert file.read_bytes() == damaged, what
