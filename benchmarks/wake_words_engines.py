"""Spotters of wake words for the benchmark: a run of this project, and PocketSphinx' keyword mode.

Each reads a stream once with the lowest threshold and gives all events with their scores.
"""

import hashlib
import itertools
import math
import sys
import tempfile
import time
from pathlib import Path

from mamba_speech.audio import open_audio
from mamba_speech.blocks import AudioBlocks
from mamba_speech.files import read_json, write_json
from mamba_speech.kws.spotter import KeywordSpotter

# log-odds beyond this say nothing: a float32 probability next to 1
MOST = 1e-7


class Run:
    """A trained run of the keyword recipe.

    Arguments
    ---------
    folder : str or Path
    device : str
    options : dict
        Of :meth:`mamba_speech.kws.spotter.KeywordSpotter.stream`.
    """

    name = "this project"

    def __init__(self, folder, device="cpu", **options):
        self.folder, self.options = Path(folder), options
        self.spotter = KeywordSpotter.load(folder, device)

    @property
    def identity(self):
        """A digest of the weights and the options, by which stored events are found again."""
        digest = hashlib.sha256(repr(sorted(self.options.items())).encode())
        for name, value in self.spotter.model.state_dict().items():
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def check(self, words):
        """ValueError if the run does not know one of the words."""
        unknown = [word for word in words if word not in self.spotter.labels]
        if unknown:
            raise ValueError(
                f"{self.folder} was not trained on {', '.join(unknown)}, but the streams hold them: train it on the "
                "same --data_folder"
            )

    def events(self, path):
        """All events of a stream, scores being log-odds of the smoothed probability; list of dict."""
        blocks = AudioBlocks(path, self.spotter.sample_rate)
        return [
            {
                "label": event.label,
                "start": event.start,
                "end": event.end,
                "score": log_odds(event.confidence),
            }
            for event in self.spotter.stream(blocks, **({"threshold": 0.0} | self.options))
        ]


def log_odds(probability):
    """The logarithm of p / (1 - p), finite.

    Example
    -------
    >>> log_odds(0.5), log_odds(1.0) > 16
    (0.0, True)
    """
    probability = min(max(probability, MOST), 1 - MOST)
    return math.log(probability / (1 - probability))


class PocketSphinx:
    """PocketSphinx' search for key phrases, with the English model of its package.

    Scores are logarithms to base 10 of the threshold that the event would just pass. A word of several parts, such as
    ``smart_mirror``, is the phrase of its parts. Each pronunciation is a phrase of its own; of events that overlap
    only the best stays.

    Arguments
    ---------
    words : list of str
    pronunciations : dict of str to list of str
        Of words that the dictionary lacks, or instead of its own, in its phones.

    Raises
    ------
    RuntimeError
        If the package is not installed.
    ValueError
        If a part of a word has no pronunciation.
    """

    name = "PocketSphinx"
    # so low that far more is reported than any threshold of use would let through
    LOWEST = 1e-60
    # probability of the loop of all phones, the words' rival; chosen on validation, the package's own being 0.1
    LOOP = 1e-2
    RATE = 16000
    # Streams are decoded in pieces: the package looks through all events of a piece for each new one.
    PIECE, OVERLAP = 60, 4
    FRAMES = 100  # a second
    # its scores count its logarithm's units by so many at a time, from an offset on
    BASE, SHIFT, OFFSET = 1.0001, 1024, 1500

    def __init__(self, words, pronunciations):
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise RuntimeError(
                "PocketSphinx is compared with, but not installed: pip install pocketsphinx, or leave it out with "
                "--spotters ours"
            ) from error
        self._decoder = Decoder(
            keyphrase="computer",
            kws_threshold=self.LOWEST,
            kws_plp=self.LOOP,
            loglevel="FATAL",
        )
        self.phrases = {}
        self.spoken = {word: [] for word in words}
        for word in words:
            parts = [self._pronounced(word, part, pronunciations) for part in word.split("_")]
            for chosen in itertools.product(*parts):
                self.phrases[self._phrase(chosen)] = word
                self.spoken[word].append("  ".join(chosen))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "phrases")
            path.write_text(
                "".join(f"{phrase} /{self.LOWEST}/\n" for phrase in self.phrases), encoding="utf-8"
            )
            self._decoder.add_kws("words", str(path))
        self._decoder.activate_search("words")

    @property
    def identity(self):
        """A digest of all that alters its events."""
        settings = (self.LOWEST, self.LOOP, self.PIECE, self.OVERLAP)
        told = repr((sorted(self.spoken.items()), *settings))
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def _pronounced(self, word, part, given):
        part = part.lower()
        if given.get(part):
            return list(given[part])
        found = []
        for number in itertools.count(1):
            one = self._decoder.lookup_word(part if number == 1 else f"{part}({number})")
            if one is None:
                break
            found.append(one)
        if not found:
            raise ValueError(
                f"PocketSphinx' dictionary has no {part!r} of {word!r}: say it in its phones, such as --pronunciation "
                f"{part}='S N OW B OY'"
            )
        return found

    def _phrase(self, chosen):
        """A phrase of invented words with these pronunciations."""
        names = [f"x{phones.replace(' ', '').lower()}" for phones in chosen]
        for name, phones in zip(names, chosen, strict=True):
            if self._decoder.lookup_word(name) is None:
                self._decoder.add_word(name, phones, True)
        return " ".join(names)

    def events(self, path):
        """All events of a stream; list of dict."""
        found, length = [], self.PIECE * self.RATE
        hop = length - self.OVERLAP * self.RATE
        with open_audio(path) as audio:
            frames = audio.check_end()
            if audio.rate != self.RATE:
                raise ValueError(f"{path}: PocketSphinx takes {self.RATE} Hz")
            for start in range(0, max(1, frames - self.OVERLAP * self.RATE), hop):
                audio.seek(start)
                piece = audio.read(length, dtype="int16")[:, 0]
                # an event in the overlap of two pieces is taken from that in which it is further from the edge
                first = start / self.RATE + (self.OVERLAP / 2 if start else 0)
                end = (start + length) / self.RATE - self.OVERLAP / 2
                end = math.inf if start + length >= frames else end
                found += [
                    event
                    for event in self._decode(piece, start / self.RATE)
                    if first <= (event["start"] + event["end"]) / 2 < end
                ]
        return without_overlaps(found)

    def _decode(self, piece, offset):
        self._decoder.start_utt()
        self._decoder.process_raw(piece.tobytes(), full_utt=True)
        self._decoder.end_utt()
        for segment in self._decoder.seg() or ():
            units = math.log(segment.prob) / math.log(self.BASE) + self.OFFSET
            yield {
                "label": self.phrases[segment.word.strip()],
                "start": round(offset + segment.start_frame / self.FRAMES, 3),
                "end": round(offset + segment.end_frame / self.FRAMES, 3),
                "score": round(units * self.SHIFT * math.log10(self.BASE), 4),
            }


def without_overlaps(events):
    """The best of events of one word that overlap.

    Example
    -------
    >>> one = {"label": "a", "start": 0.0, "end": 1.0, "score": 1.0}
    >>> without_overlaps([one, one | {"start": 0.9, "end": 2.0, "score": 2.0}, one | {"label": "b"}])[0]["score"]
    2.0
    """
    kept = {}
    for event in sorted(events, key=lambda one: (one["start"], one["end"])):
        own = kept.setdefault(event["label"], [])
        if own and own[-1]["end"] > event["start"]:
            if event["score"] > own[-1]["score"]:
                own[-1] = event
        else:
            own.append(event)
    return sorted(itertools.chain(*kept.values()), key=lambda one: one["start"])


def listen(spotter, truth, condition, folder, stored):
    """The events of a spotter on one stream, from its store where they are there.

    Arguments
    ---------
    spotter : Run or PocketSphinx
    truth : dict
        Content of ``events.json``.
    condition : str
        A key of its ``streams``.
    folder : Path
        Of the stream.
    stored : Path
        Folder of events that were found before.

    Returns
    -------
    dict
        ``events`` and ``rate``, seconds of processor time for a second of the stream.
    """
    stream = truth["streams"][condition]
    path = stored / f"{spotter.identity}_{stream['sha256'][:16]}.json"
    if path.is_file():
        return read_json(path)
    print(f"{spotter.name}: {truth['part']}, {condition} ...", file=sys.stderr, flush=True)
    began = time.process_time()
    events = spotter.events(folder / stream["audio"])
    rate = (time.process_time() - began) / truth["seconds"]
    stored.mkdir(parents=True, exist_ok=True)
    write_json(path, {"events": events, "rate": rate})
    return {"events": events, "rate": rate}
