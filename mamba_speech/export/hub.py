"""Pushing an exported folder to the Hugging Face Hub.

huggingface_hub finds the token and the endpoint in their usual places: HF_TOKEN or `hf auth login`, HF_ENDPOINT.
"""

from contextlib import contextmanager

from huggingface_hub import HfApi
from huggingface_hub.errors import LocalTokenNotFoundError
from huggingface_hub.utils import build_hf_headers, get_session, validate_repo_id

from mamba_speech.plain_yaml import cut

# seconds that the hub has for its first answer; huggingface_hub itself waits for ever
PATIENCE = 20.0


def check_hub(repo):
    """See that the hub answers and knows the user's token, before anything is written.

    Arguments
    ---------
    repo : str
        `OWNER/NAME`.

    Raises
    ------
    OSError
        If the hub does not answer, there is no token, or the hub refuses it.
    ValueError
        If it is no name of a repository.
    """
    validate_repo_id(repo)
    api = HfApi()
    try:
        headers = build_hf_headers(token=True)
    except LocalTokenNotFoundError as error:
        raise OSError(
            f"{repo}: there is no token of the Hugging Face Hub: run `hf auth login`, or set HF_TOKEN"
        ) from error
    with _errors_name(repo, f"{api.endpoint} does not answer"):
        answer = get_session().get(
            f"{api.endpoint}/api/whoami-v2", headers=headers, timeout=PATIENCE
        )
    if answer.status_code in (401, 403):
        raise OSError(
            f"{repo}: {api.endpoint} refuses the token: run `hf auth login`, or set HF_TOKEN"
        )
    if answer.status_code != 200:
        raise OSError(f"{repo}: {api.endpoint} answers with the status {answer.status_code}")


def push_folder(folder, repo, private=False):
    """Upload a folder as one commit, into a repository that is made if it is not there.

    Arguments
    ---------
    folder : str or Path
    repo : str
        `OWNER/NAME`.
    private : bool
        Whether a repository that is made is private.

    Returns
    -------
    str
        The address of the repository.

    Raises
    ------
    OSError
        If the hub refuses it or leaves; the folder stays as it is.
    """
    api = HfApi()
    kept = f"{api.endpoint} did not take it; {folder} is written, and `hf upload {repo} {folder}` pushes it"
    with _errors_name(repo, kept):
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo, folder_path=str(folder), commit_message="Upload by mamba-speech export"
        )
    return str(address)


@contextmanager
def _errors_name(repo, what):
    try:
        yield
    except Exception as error:
        # the errors of the HTTP library, which differs between versions of huggingface_hub
        reason = cut(str(error) or type(error).__name__, 300)
        raise OSError(f"{repo}: {what} ({reason})") from error
