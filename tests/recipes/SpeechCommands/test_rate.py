"""rate.py: the options that let a recipe train for so many seconds."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.keywords import RECIPE, ROOT, TASK


@pytest.mark.exhaustive
def test_the_options_of_a_budget_stand_alone_on_stdout_and_grow_with_it(tones):
    task = [word for name, value in TASK.items() for word in (f"--{name}", str(value))]

    def steps(seconds):
        command = [sys.executable, "rate.py", seconds, "hparams/debug.yaml", "--num_workers", "0"]
        done = subprocess.run(
            [*command, "--data_folder", str(tones), *task],
            cwd=RECIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.fullmatch(r"optimizer_step_limit=(\d+),number_of_epochs=(\d+)\n", done.stdout)
        assert done.returncode == 0 and found, done.stdout + done.stderr
        return [int(number) for number in found.groups()]

    few, many = steps("0.01"), steps("100")
    assert 1 <= few[0] < many[0] and 1 <= few[1] < many[1]
