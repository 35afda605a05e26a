"""Tables of a check: rows as JSON for ``benchmarks/readme_tables.py``, and as Markdown under a heading."""

import datetime
import json
import os
import platform
import subprocess

import torch


def machine(device):
    """Facts of the machine that a table is worthless without.

    Arguments
    ---------
    device : torch.device

    Returns
    -------
    dict of str: str
    """
    facts = {
        "date": datetime.date.today().isoformat(),
        "device": "CPU",
        "driver": "none",
        "torch": torch.__version__,
        "triton": _version("triton"),
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        facts["device"] = f"{torch.cuda.get_device_name(device)}, capability {major}.{minor}"
        facts["driver"] = query_card("driver_version") or "unknown"
        facts["CUDA"] = str(torch.version.cuda)
    return facts


def _version(package):
    try:
        return __import__(package).__version__
    except ImportError:
        return "none"


def query_card(field):
    """One field of ``nvidia-smi`` for the first card, or ``None`` where that program does not answer."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.splitlines()[0].strip() if said.stdout.strip() else None


class Report:
    """A stage's table, written again after every row, so that a stopped stage leaves what it had.

    Arguments
    ---------
    folder : pathlib.Path
        Receives ``NAME.json`` and ``NAME.md``.
    name, title : str
    device : torch.device
    command : str
        That made the table.
    """

    def __init__(self, folder, name, title, device, command):
        self.folder, self.name, self.title = folder, name, title
        self.facts = machine(device) | {"command": f"`{command}`"}
        self.rows, self.notes = [], []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, **row):
        """Add a row, print it and write the table."""
        self.rows.append(row)
        print("  ".join(str(value) for value in row.values()), flush=True)
        self.write()

    def write(self):
        """Write the table's two files."""
        write_atomically(self.folder / f"{self.name}.json", json.dumps(self.rows, indent=1) + "\n")
        write_atomically(self.folder / f"{self.name}.md", self.markdown())
        facts = json.dumps(self.facts | {"notes": self.notes}, indent=1)
        write_atomically(self.folder / f"{self.name}_machine.json", facts + "\n")

    def markdown(self):
        """The table under its heading, with the facts and the notes."""
        facts = "; ".join(f"{name}: {value}" for name, value in self.facts.items())
        lines = [f"## {self.title}", "", facts, ""]
        if self.rows:
            columns = list(self.rows[0])
            table = [columns, ["---"] * len(columns)]
            table += [[str(row[column]) for column in columns] for row in self.rows]
            lines += ["| " + " | ".join(cells) + " |" for cells in table] + [""]
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines).rstrip() + "\n"


def write_atomically(path, text):
    """Write a file under a temporary name and rename it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
