"""Triton kernels of the state-space core, and the plans by which they are launched.

Nothing here is imported before a tensor needs it: ``modules.ssm.scan.triton_backend`` and
``modules.ssm.conv.triton_backend`` are the doors.
"""
