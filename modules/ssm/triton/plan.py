"""How the Triton scan is cut into programs: channels a program, frames a round, chunks of time.

The choice follows from counting instructions, not from a card. ``benchmarks/gpu_check.sh speed`` times it on one.
"""

from dataclasses import astuple, dataclass

# Frames between two states that the forward pass keeps: a sixteenth of the history of all states.
KEEP = 16
# States that the forward pass can hold in registers; more are scanned in several calls.
MAX_STATES = 64
# Offsets within an utterance are 32-bit.
MAX_OFFSET = 2**31


@dataclass(frozen=True)
class PassPlan:
    """The launch of one pass.

    Arguments
    ---------
    block : int
        Channels a program, a power of two.
    warps : int
        Warps a program; ``block / (32 * warps)`` channels fall to a thread.
    frames : int
        Frames whose loads are issued together: a power of two, at most KEEP.
    chunk : int
        Frames a chunk of time, a multiple of KEEP; 0 for the whole utterance in one program.
    """

    block: int
    warps: int
    frames: int
    chunk: int = 0

    def __post_init__(self):
        for name in ("block", "warps", "frames"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ValueError(f"{name} of a scan plan must be a power of two; got {value}")
        if self.frames > KEEP:
            raise ValueError(f"frames of a scan plan must be at most {KEEP}; got {self.frames}")
        if self.chunk < 0 or self.chunk % KEEP:
            raise ValueError(
                f"chunk of a scan plan must be a multiple of {KEEP}, or 0; got {self.chunk}"
            )

    def chunks(self, time):
        """Frames a chunk and number of chunks for ``time`` frames (at least one)."""
        frames = self.chunk or -(-time // KEEP) * KEEP
        return frames, -(-time // frames)


@dataclass(frozen=True)
class ScanPlan:
    """The launches of both passes.

    Example
    -------
    >>> from modules.ssm.triton.plan import plan
    >>> plan(batch=1, time=8000, channels=512, states=16, directions=2).forward.chunks(8000)
    (256, 32)
    """

    forward: PassPlan
    backward: PassPlan

    def numbers(self):
        """The plan as a list of integers, as an operator takes it."""
        return [*astuple(self.forward), *astuple(self.backward)]

    @classmethod
    def of(cls, numbers):
        """The plan that :meth:`numbers` describes."""
        return cls(PassPlan(*numbers[:4]), PassPlan(*numbers[4:]))


def plan(batch, time, channels, states, directions=1, multiprocessors=132):
    """Choose the launches of a scan.

    A multiprocessor has four schedulers, and one warp that has 16 states to itself keeps a scheduler
    busy for most of the time, two nearly always. So warps are counted, and time is cut where they do
    not suffice. Cutting costs: the forward pass is done nearly twice, the backward pass once and a
    quarter, so that the latter is cut earlier.

    Arguments
    ---------
    batch, time, channels, states, directions : int
        Sizes of the scan; ``directions`` is 2 for a bidirectional one.
    multiprocessors : int
        Of the device.

    Returns
    -------
    ScanPlan
    """
    rows = batch * directions
    # Forward: a channel a thread. Its exponentials take 2.5 clocks a warp, state and frame, issuing
    # all instructions 3; two channels would halve the number of warps.
    frames = 4 if states <= 16 else 2 if states <= 32 else 1
    programs = rows * -(-channels // 32)
    forward = PassPlan(32, 1, frames, _chunk(programs, time, multiprocessors, 3, 4 * KEEP))
    # Backward: two channels a thread, because every sum over channels costs five shuffles a thread.
    # Chunks keep five rows of states each, so that shorter ones would need too much memory.
    block = 64 if channels > 32 else 32
    programs = rows * -(-channels // block)
    backward = PassPlan(block, 1, 4, _chunk(programs, time, multiprocessors, 6, 12 * KEEP))
    return ScanPlan(forward, backward)


def _chunk(programs, time, multiprocessors, enough, least):
    """Frames a chunk, so that about eight programs come to a multiprocessor.

    0 if there are ``enough`` without cutting time, or if a chunk would hold it all.
    """
    if programs >= enough * multiprocessors:
        return 0
    wanted = round(8 * multiprocessors / max(programs, 1))
    frames = max(-(-time // (wanted * KEEP)) * KEEP, least)
    return frames if frames < time else 0
