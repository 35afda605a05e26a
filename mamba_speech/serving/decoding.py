"""Uploads are decoded in processes of their own, with limits of memory and time.

A hostile file can end such a process, and not the service. The pool starts another one.
"""

import asyncio
import resource
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

import numpy as np
import torch
from pebble import ProcessExpired, ProcessPool

from mamba_speech.audio import AudioError, collected_warnings
from mamba_speech.blocks import AudioBlocks
from mamba_speech.serving.errors import ServiceError, unusable

# a decoder's process is replaced after so many files, so that no library's leak adds up
FILES_A_PROCESS = 500
# seconds that processes have to end by themselves
CLOSING_SECONDS = 10


class UploadDecoder:
    """Decodes files to mono waveforms in limited processes.

    Arguments
    ---------
    processes : int
    memory_mb : float
        Memory that a process may take beyond what it has when it starts.
    seconds : float
        Time of one file.
    most_seconds : float
        Longest recording, in seconds.

    Example
    -------
    Not run here, since it starts processes::

        decoder = UploadDecoder(processes=2, memory_mb=2048, seconds=60, most_seconds=3600)
        waveform, warnings = await decoder.decode("upload", sample_rate=16000)
    """

    def __init__(self, processes, memory_mb, seconds, most_seconds):
        self.seconds, self.most_seconds = seconds, most_seconds
        # spawned, since a fork of a process with threads may hang
        self._pool = ProcessPool(
            max_workers=processes,
            max_tasks=FILES_A_PROCESS,
            initializer=_limit_memory,
            initargs=(int(memory_mb * 2**20),),
            context=torch.multiprocessing.get_context("spawn"),
        )

    async def decode(self, path, sample_rate):
        """Read a file.

        Arguments
        ---------
        path : str or Path
            The file; what is decoded is written beside it for a moment.
        sample_rate : int
            Wanted samples a second.

        Returns
        -------
        (torch.Tensor, list of str)
            (samples,), float32; and what is odd about the recording, in words.

        Raises
        ------
        ServiceError
            If it is no usable audio, too long, or costs more memory or time than it may.
        """
        arguments = (str(path), sample_rate, self.most_seconds)
        future = self._pool.schedule(_decode, args=arguments, timeout=self.seconds)
        try:
            samples, warnings = await asyncio.wrap_future(future)
        except AudioError as error:
            raise unusable(_without_path(error, path)) from error
        except _TooLongError as error:
            raise ServiceError(413, "recording_too_long", str(error)) from error
        except MemoryError as error:
            raise unusable("the recording needs more memory than a recording may") from error
        except (TimeoutError, FutureTimeoutError, asyncio.TimeoutError) as error:
            limit = f"{self.seconds:g}"
            raise unusable(f"the recording was not decoded within {limit} seconds") from error
        except ProcessExpired as error:
            raise unusable("the recording ended the process that decoded it") from error
        waveform = torch.from_numpy(np.fromfile(f"{path}.samples", np.float32, samples))
        return waveform, [_without_path(one, path) for one in warnings]

    def close(self):
        """End the processes when they have done what they have."""
        self._pool.close()
        try:
            self._pool.join(timeout=CLOSING_SECONDS)
        except TimeoutError:
            self._pool.stop()
            self._pool.join()


class _TooLongError(Exception):
    """A recording that is longer than it may be."""


def _limit_memory(extra):
    """Limit the address space of this process to what it has and so many bytes more."""
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc").exists() else 0
    if not pages:
        # macOS knows no such limit
        return
    limit = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _decode(path, sample_rate, most_seconds):
    """Write the samples beside the file; their number, and warnings."""
    samples = 0
    with collected_warnings() as odd, open(f"{path}.samples", "wb") as file:
        for block in AudioBlocks(path, sample_rate):
            samples += len(block)
            if samples > most_seconds * sample_rate:
                raise _TooLongError(
                    f"the recording is longer than {most_seconds:g} seconds: send parts of it"
                )
            block.contiguous().numpy().tofile(file)
    if not samples:
        raise AudioError(f"{path}: holds no samples")
    return samples, [one.text for one in odd]


def _without_path(text, path):
    """A sentence that calls the upload by no name of this machine."""
    return str(text).replace(f"{path}: ", "").replace(str(path), "the upload")
