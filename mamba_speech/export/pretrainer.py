"""How SpeechBrain finds and loads the files of an exported folder: weights from safetensors, by their own names."""

from pathlib import Path

import torch
from speechbrain.utils.fetching import FetchConfig, LocalStrategy, fetch
from speechbrain.utils.parameter_transfer import Pretrainer

from mamba_speech.exported import load_weights


class FolderPretrainer(Pretrainer):
    """SpeechBrain's ``Pretrainer`` for folders of ``mamba-speech export``.

    SpeechBrain's own one unpickles ``KEY.ckpt``.

    Arguments
    ---------
    loadables : dict
        Objects by name; networks get the weights of their name.
    files : dict of str to str
        Names of the files in the folder, by the loadables' names.
    """

    def __init__(self, loadables, files):
        super().__init__(loadables=loadables)
        self.files = files

    def collect_files(
        self,
        default_source=None,
        local_strategy=LocalStrategy.SYMLINK,
        fetch_config=FetchConfig(),  # noqa: B008 - as SpeechBrain's own
    ):
        """Find the files in ``default_source``, a folder or a name on the Hugging Face Hub; gives their paths."""
        for name in self.loadables:
            path = fetch(
                filename=self.files[name],
                source=default_source,
                savedir=self.collect_in,
                save_filename=self.files[name].replace("/", "-"),
                local_strategy=local_strategy,
                fetch_config=fetch_config,
            )
            self.paths[name] = str(path)
            self.is_local.append(name)
        return {name: Path(self.paths[name]) for name in self.loadables}

    def _call_load_hooks(self, paramfiles):
        networks = {
            name: one for name, one in self.loadables.items() if isinstance(one, torch.nn.Module)
        }
        for name, network in networks.items():
            load_weights(paramfiles[name], {name: network})
        kept, self.loadables = self.loadables, dict(self.loadables.items() - networks.items())
        try:
            super()._call_load_hooks(paramfiles)
        finally:
            self.loadables = kept
