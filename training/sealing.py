"""Bringing the files of a checkpoint to the disk, and their checksums, while other files are written."""

from concurrent.futures import ThreadPoolExecutor

from torch.serialization import get_crc32_options, set_crc32_options

from mamba_speech.checkpoint_files import checksum
from mamba_speech.files import naming_file, sync_file


class Sealing:
    """Brings files to the disk, and computes their checksums, while others are written; a context manager."""

    def __enter__(self):
        # torch writes a checksum for each record, which nothing reads: one of the whole file takes its place
        self._before = get_crc32_options()
        set_crc32_options(False)
        self._pool, self._files = ThreadPoolExecutor(2), {}
        return self

    def __exit__(self, *error):
        set_crc32_options(self._before)
        self._pool.shutdown()

    def add(self, path):
        """Begin with a file that is written; a second time it is let be."""
        if path.name not in self._files:
            tasks = [self._pool.submit(task, path) for task in (checksum, sync_file)]
            self._files[path.name] = (path, *tasks)

    def facts(self):
        """Size and checksum of each file by its name, once all are on the disk."""
        facts = {}
        for name, (path, digest, synced) in sorted(self._files.items()):
            with naming_file(path):
                synced.result()
                facts[name] = {"bytes": path.stat().st_size, "crc32": digest.result()}
        return facts
