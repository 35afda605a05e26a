"""Preparing a corpus once, for all processes of a run."""

from pathlib import Path

from speechbrain.utils.distributed import run_on_main


def prepare_once(prepare, options, needed, skip_prep=False):
    """Let the main process prepare a corpus, and tell every process where its manifests are.

    Arguments
    ---------
    prepare : callable
        Function of ``data_prep`` that writes manifests and gives their paths by name. With ``skip_prep`` it only
        gives the paths.
    options : dict
        Arguments of ``prepare``.
    needed : iterable of str
        Names of the files that must exist afterwards.
    skip_prep : bool
        Whether nothing is prepared.

    Returns
    -------
    dict
        Result of ``prepare``.

    Raises
    ------
    OSError, ValueError
        If the corpus cannot be prepared, or a needed file does not exist.
    """
    found = {}

    def run(**changes):
        found.update(prepare(**options | changes))

    run_on_main(run, kwargs={"skip_prep": skip_prep})
    if not found:
        run(skip_prep=True)
    for name in needed:
        if not Path(found[name]).is_file():
            raise FileNotFoundError(f"{found[name]}: not there; run once without --skip_prep")
    return found
