"""The command `mamba-speech serve`: answers over HTTP and WebSocket with trained models."""

import logging
import sys
from pathlib import Path

from mamba_speech.arguments import given_path, whole_number

# seconds that a service which ends gives to what it has accepted
SHUTDOWN_SECONDS = 60


def add_arguments(parser):
    """Give the parser of `mamba-speech serve` its arguments."""
    parser.add_argument(
        "runs",
        nargs="*",
        type=given_path,
        metavar="RUN",
        help="output folder of a training, or an exported folder; its name is the model's",
    )
    parser.add_argument(
        "--config", type=given_path, metavar="FILE", help="YAML file of settings and models"
    )
    parser.add_argument("--host", metavar="HOST", help="address to listen at; default: 127.0.0.1")
    parser.add_argument(
        "--port", type=whole_number(0, 65535), metavar="PORT", help="port; default: 8000"
    )
    parser.add_argument(
        "--device", metavar="DEVICE", help="device, such as cpu or cuda:1; default: a GPU if any"
    )
    parser.add_argument(
        "--page", action="store_true", help="a page to try the models in, at the service's address"
    )
    parser.epilog = (
        "The environment sets every setting too, such as MAMBA_SPEECH_API_KEYS and MAMBA_SPEECH_QUEUE_SIZE. "
        "Ctrl+C or SIGTERM ends the service when it has answered what it accepted."
    )


def run_command(arguments):
    """Run `mamba-speech serve`; returns the exit status, 0 when it was ended."""
    try:
        import uvicorn

        from mamba_speech.serving.app import create_app
        from mamba_speech.serving.settings import read_settings
    except ModuleNotFoundError as error:
        raise ValueError(
            f"serving needs the package {error.name}: pip install 'mamba-speech[serve]'"
        ) from error
    settings = read_settings(
        arguments.config,
        models=_named(arguments.runs) or None,
        host=arguments.host,
        port=arguments.port,
        device=arguments.device,
        page=arguments.page or None,
    )
    print(settings.shown(), file=sys.stderr, flush=True)
    app = create_app(settings)
    if settings.page:
        print(f"page: http://{settings.host}:{settings.port}/", file=sys.stderr, flush=True)
    log = logging.getLogger("mamba_speech.serving")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            ws_max_size=8 * 2**20,
        )
    )
    return _serve(server, settings)


def _serve(server, settings):
    """Serve until a signal comes; 1 if the service could not begin."""
    try:
        server.run()
    except SystemExit as error:
        # uvicorn ends so when the port is in use
        if error.code:
            raise OSError(
                f"cannot listen at {settings.host}:{settings.port}: give another --port"
            ) from error
    return 0


def _named(runs):
    """Models of run folders, by the folders' names.

    Example
    -------
    >>> _named(["results/demo/run", "results/spotter"])
    {'run': 'results/demo/run', 'spotter': 'results/spotter'}
    """
    models = {}
    for run in runs:
        name = Path(run).resolve().name
        if name in models:
            raise ValueError(
                f"{run} and {models[name]} have one name: give them names in a file, by --config"
            )
        models[name] = str(run)
    return models
