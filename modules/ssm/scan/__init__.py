"""The selective scan: one operation, a readable reference (``naive``) and faster backends beside it."""

from modules.ssm.scan.bidirectional import bidirectional_scan
from modules.ssm.scan.dispatch import available_backends, selective_scan
from modules.ssm.scan.interface import selective_scan_fn, selective_scan_ref

__all__ = [
    "available_backends",
    "bidirectional_scan",
    "selective_scan",
    "selective_scan_fn",
    "selective_scan_ref",
]
