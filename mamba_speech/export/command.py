"""The command `mamba-speech export`: a trained run as a folder that others load."""

from mamba_speech.arguments import add_run_folder, given_name, given_path, whole_number
from mamba_speech.audio.names import plain
from mamba_speech.export import DEFAULT_FORMAT, FORMATS, export_run


def add_arguments(parser):
    """Give the parser of `mamba-speech export` its arguments."""
    add_run_folder(parser)
    parser.add_argument(
        "folder", metavar="FOLDER", type=given_path, help="new folder for the exported model"
    )
    kinds = "; ".join(f"{name}: {form.summary}" for name, form in FORMATS.items())
    parser.add_argument(
        "--format",
        dest="export_format",
        choices=FORMATS,
        default=DEFAULT_FORMAT,
        help=f"kind of the folder ({kinds}; default: %(default)s)",
    )
    parser.add_argument(
        "--quantize",
        choices=("int8",),
        help="type of the weights of a second, smaller model file (--format onnx)",
    )
    parser.add_argument(
        "--opset",
        type=whole_number(1, 99),
        metavar="N",
        help="version of ONNX's operators (--format onnx; default: 20)",
    )
    parser.add_argument(
        "--push_to_hub",
        metavar="REPO",
        type=given_name,
        help="repository OWNER/NAME of the Hugging Face Hub that gets the folder too",
    )
    parser.add_argument(
        "--private", action="store_true", help="private repository, if REPO is not there yet"
    )
    parser.epilog = (
        "FOLDER is written whole or not at all, and one that is there must be empty. RUN_FOLDER stays as it is. The "
        "token of the Hub is that of `hf auth login`, or HF_TOKEN."
    )


def run_command(arguments):
    """Run `mamba-speech export`; returns the exit status."""
    given = {"quantize": arguments.quantize, "opset": arguments.opset}
    options = {name: value for name, value in given.items() if value is not None}
    address = export_run(
        arguments.run_folder,
        arguments.folder,
        arguments.export_format,
        push_to_hub=arguments.push_to_hub,
        private=arguments.private,
        **options,
    )
    print(plain(arguments.folder))
    if address is not None:
        print(plain(address))
    return 0
