"""Which command is for which task, and the answer to a command that got a run of another task."""

# command: tasks of the runs that it takes; commands that are not here take all
TASKS = {
    "transcribe": ("recognition", "streaming"),
    "listen": ("streaming",),
    "separate": ("separation",),
    "spot": ("keywords",),
    "verify": ("speaker",),
    "embed": ("speaker",),
    "enroll": ("speaker",),
    "identify": ("speaker",),
}
# task: words for a run of it, and the command to begin with
RUNS = {
    "recognition": ("a recognition run", "transcribe"),
    "streaming": ("a streaming recognition run", "listen"),
    "separation": ("a separation run", "separate"),
    "keywords": ("a keyword run", "spot"),
    "speaker": ("a speaker run", "verify"),
}


def check_task(run_folder, command):
    """Refuse a run of another task than the command is for.

    Arguments
    ---------
    run_folder : str or Path
        A folder that tells no task passes: whoever loads it says what is wrong with it.
    command : str

    Raises
    ------
    ValueError
        The sentence names the command for this run.
    """
    if command not in TASKS:
        return
    # not at the top, since it loads torch, which help does without
    from mamba_speech.run_task import task_of

    try:
        task = task_of(run_folder)
    except (OSError, ValueError):
        return
    if task is None or task in TASKS[command]:
        return
    words, other = RUNS[task]
    instead = f"use `mamba-speech {other}`"
    if command == "listen" and task == "recognition":
        words += ", which needs whole utterances"
        instead += ", or train with a streaming YAML, such as conmamba_streaming_small.yaml"
    raise ValueError(f"{run_folder}: this is {words}: {instead}")
