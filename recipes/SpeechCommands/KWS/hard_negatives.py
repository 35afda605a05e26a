"""Hard negatives: pieces of other speech, and computed noises, on which the spotter rings while it is trained.

After each epoch the network listens to a part of the training speakers' other speech as to a stream. Pieces in which it
hears a keyword are fed back: as clips of `_unknown_`, and as what precedes other clips. It also hears clips of computed
noise, and those on which it rings come back as clips of `_silence_`. Source: Sung and Poggio,
"Example-based learning for view-based human face detection" (PAMI 1998), section 4, which calls this bootstrapping.
"""

import logging
from pathlib import Path

import torch
from silence import compute_noise
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks
from speechbrain.utils.distributed import ddp_broadcast, if_main_process

from data_prep.keywords.clips import OTHER_SPEECH
from mamba_speech.audio import AudioError
from mamba_speech.blocks import AudioBlocks
from mamba_speech.files import read_json, write_json
from mamba_speech.kws.spotter import KeywordSpotter

logger = logging.getLogger(__name__)

# least confidence of a keyword in speech without one: half of what a spotter reports by default
RINGS = 0.25
# most pieces that are kept, the surest ones
MOST = 2000
# clips of computed noise that are heard after an epoch, how many at once, and the most that are kept
NOISES, NOISE_BATCH, MOST_NOISES = 512, 64, 500


@register_checkpoint_hooks
class HardNegatives:
    """Pieces of the training speakers' other speech on which the network rings, found anew after each epoch.

    A recoverable of the checkpointer, so that a resumed run draws the pieces that an undisturbed one draws.

    Arguments
    ---------
    recordings : list of str
        The recordings of other speech, in the order in which they are listened to.
    share : float
        How often :meth:`draw` gives a piece, from 0 to 1, once there are any.
    seconds : float
        Length of a piece, which is the model's window.
    minutes : float
        How much is listened to after an epoch; the next one goes on where this one ends.
    noises : bool
        Whether clips of computed noise are heard too.

    Attributes
    ----------
    pieces : list of list
        Number of the recording, first sample and end of the piece in it, and confidence of the keyword heard; the
        surest foremost. They hold no paths, so that a run whose corpus was moved goes on.

    Example
    -------
    >>> hard = HardNegatives(["a.wav"], share=1.0, seconds=1.0, minutes=10.0)
    >>> hard.draw() is None
    True
    >>> hard.pieces = [[0, 32000, 48000, 0.7]]
    >>> hard.draw()
    ('a.wav', 32000, 48000)
    """

    def __init__(self, recordings, share, seconds, minutes, noises=False):
        self.recordings, self.share = list(recordings), share
        self.seconds, self.minutes, self._hears_noises = seconds, minutes, noises
        self.pieces, self._next = [], 0
        self.noises, self._next_noise = [], 0

    def draw(self):
        """File, first sample and end of one of the pieces, drawn from torch's generator, or ``None``."""
        if not self.pieces or torch.rand(()) >= self.share:
            return None
        number, start, stop, _ = self.pieces[int(torch.randint(len(self.pieces), ()))]
        return self.recordings[number], start, stop

    def draw_noise(self):
        """Seed of one of the computed noises, drawn from torch's generator, or ``None`` for a new noise."""
        if not self.noises or torch.rand(()) >= self.share:
            return None
        return self.noises[int(torch.randint(len(self.noises), ()))][0]

    def search(self, options, labels, device):
        """Listen to the next recordings, and keep the pieces on which the network rings.

        What was found in these recordings before is forgotten: the network may have learnt it. Of several processes
        the main one listens, and tells the others.

        Arguments
        ---------
        options : dict
            Hyperparameters of the run, with its networks.
        labels : list of str
        device : str or torch.device
        """
        if if_main_process():
            self._search(options, labels, torch.device(device))
        if torch.distributed.is_initialized():
            self._set_state(ddp_broadcast(self._state()))

    def _state(self):
        return {
            "next": self._next,
            "pieces": self.pieces,
            "next_noise": self._next_noise,
            "noises": self.noises,
        }

    def _set_state(self, state):
        self._next, self.pieces = state["next"], state["pieces"]
        # a run of an earlier version heard no noises
        self._next_noise, self.noises = state.get("next_noise", 0), state.get("noises", [])

    def _search(self, options, labels, device):
        networks = [options["compute_features"], options["model"]]
        modes = [network.training for network in networks]
        for network in networks:
            network.eval()
        try:
            spotter = KeywordSpotter(options, labels, device)
            heard, seconds, found = set(), 0.0, []
            while seconds < 60 * self.minutes and len(heard) < len(self.recordings):
                number = self._next
                self._next = (number + 1) % len(self.recordings)
                heard.add(number)
                length, pieces = self._listen(spotter, number)
                seconds += length
                found += pieces
            if self._hears_noises:
                self._search_noises(spotter)
        finally:
            for network, mode in zip(networks, modes, strict=True):
                network.train(mode)
        kept = [piece for piece in self.pieces if piece[0] not in heard]
        self.pieces = sorted(kept + found, key=lambda piece: (-piece[3], piece[:2]))[:MOST]
        logger.info(
            "%d hard negatives in %.1f minutes of other speech, %d in all",
            len(found),
            seconds / 60,
            len(self.pieces),
        )

    @torch.inference_mode()
    def _search_noises(self, spotter):
        """Hear the noises that were kept again, and as many new ones; keep those on which the network rings."""
        fresh = range(self._next_noise, self._next_noise + NOISES)
        self._next_noise += NOISES
        seeds = [seed for seed, _ in self.noises] + list(fresh)
        quiet = [label.startswith("_") for label in spotter.labels]
        samples = round(self.seconds * spotter.sample_rate)
        rings = []
        for first in range(0, len(seeds), NOISE_BATCH):
            batch = seeds[first : first + NOISE_BATCH]
            clips = [compute_noise(samples, spotter.sample_rate, seed) for seed in batch]
            heard = spotter.class_probabilities(clips)
            heard[:, quiet] = 0
            rings += zip(batch, heard.amax(1).tolist(), strict=True)
        kept = [[seed, confidence] for seed, confidence in rings if confidence >= RINGS]
        self.noises = sorted(kept, key=lambda noise: (-noise[1], noise[0]))[:MOST_NOISES]
        logger.info("%d computed noises of %d ring", len(kept), len(seeds))

    def _listen(self, spotter, number):
        """Seconds of a recording, and the pieces in it; one that can no longer be read is named and has none."""
        try:
            blocks = AudioBlocks(self.recordings[number], spotter.sample_rate)
            events = list(spotter.stream(blocks, threshold=RINGS))
        except (AudioError, OSError) as error:
            logger.warning("%s; it gives no hard negatives", error)
            return 0.0, []
        rate, samples = blocks.file_rate, blocks.file_samples
        length = round(self.seconds * rate)
        pieces = []
        for event in events if samples >= length else []:
            start = min(round(event.start * rate), samples - length)
            pieces.append([number, start, start + length, event.confidence])
        return samples / rate, pieces

    @mark_as_saver
    def save(self, path):
        """Write the pieces, the noises and the places in both to ``path``."""
        write_json(Path(path), self._state())

    @mark_as_loader
    def load(self, path, end_of_epoch=False):
        """Take up what :meth:`save` wrote."""
        del end_of_epoch
        self._set_state(read_json(path))


def recordings_of(dataset):
    """The recordings of other speech whose pieces a data set holds, in the order of their first piece."""
    rows = (dataset.data[key] for key in dataset.data_ids)
    return list(dict.fromkeys(row["wav"] for row in rows if row["words"] == OTHER_SPEECH))
