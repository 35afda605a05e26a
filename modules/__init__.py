"""Neural network modules of the Mamba speech recipes.

Everything here is a plain ``torch.nn.Module`` or an operation on tensors: no data sets, no files,
no training loops. The state-space core is in :mod:`modules.ssm`.
"""
