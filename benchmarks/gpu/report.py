"""The table of a stage: rows as JSON for ``benchmarks/readme_tables.py``, and Markdown with the machine's facts."""

import torch

from benchmarks.measure import machine
from mamba_speech.evaluation.tables import as_markdown
from mamba_speech.files import write_json, write_text


class Report:
    """A stage's table, written again after every row, so that a stopped stage leaves what it had.

    Arguments
    ---------
    folder : pathlib.Path
        Receives ``NAME.json`` and ``NAME.md``.
    name, title : str
    device : torch.device
    command : str
        The command that makes the table.
    """

    def __init__(self, folder, name, title, device, command):
        self.path, self.title = folder / name, title
        known = machine()
        self.facts = {key: known[key] for key in ("date", "processor", "torch", "python")}
        if device.type == "cuda":
            capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
            self.facts["device"] = f"{torch.cuda.get_device_name(device)}, capability {capability}"
            self.facts["CUDA"] = torch.version.cuda
            self.facts["Triton"] = __import__("triton").__version__
        self.facts["command"] = f"`{command}`"
        self.rows, self.notes = [], []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, **row):
        """Add a row, print it and write the table."""
        self.rows.append(row)
        print("  ".join(str(value) for value in row.values()), flush=True)
        self.write()

    def note(self, text):
        """Add a line below the table, print it and write the table."""
        self.notes.append(text)
        print(text, flush=True)
        self.write()

    def write(self):
        """Write the table's two files."""
        write_json(self.path.with_suffix(".json"), self.rows)
        facts = "; ".join(f"{name}: {value}" for name, value in self.facts.items())
        table = as_markdown(self.rows) if self.rows else ""
        notes = "".join(f"- {note}\n" for note in self.notes)
        write_text(
            self.path.with_suffix(".md"), f"## {self.title}\n\n{facts}\n\n{table}\n\n{notes}"
        )
