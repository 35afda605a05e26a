"""The Mamba block, in one direction and in both, with lengths and carried state.

:class:`Mamba` is the block of "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (arXiv
2312.00752, section 3.4). :class:`BiMamba` is the "v2" block of "Vision Mamba" (arXiv 2401.09417, section 3.3)
as the published speech models use it: shared projections, a second branch that runs backwards, and
the mean of the two. Parameter names are the published ones.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from modules.ssm.checks import check_count, check_module_input, check_positive, check_tensor
from modules.ssm.conv import bidirectional_conv1d, causal_conv1d
from modules.ssm.initialisation import init_state_matrix_, init_step_
from modules.ssm.masking import keep_valid, valid_frames
from modules.ssm.norm import RMSNorm
from modules.ssm.precision import at_least_float32
from modules.ssm.scan import bidirectional_scan, selective_scan


class MambaState(NamedTuple):
    """What a block carries from one chunk of frames to the next.

    ``conv`` (batch, inner channels, d_conv) holds the last inputs of the convolution, newest last; ``ssm``
    (batch, inner channels, d_state) is the state of the scan, float32.
    """

    conv: torch.Tensor
    ssm: torch.Tensor


class Mamba(nn.Module):
    """Mamba block: projection, short causal convolution, selective scan, gate, projection.

    Arguments
    ---------
    d_model : int
        Channels in and out.
    d_state : int
        States a channel.
    d_conv : int
        Width of the causal convolution in frames.
    expand : int
        Inner channels are ``expand * d_model``.
    dt_rank : int or str
        Rank of the step's projection; ``auto`` is ``ceil(d_model / 16)``.
    dt_min, dt_max, dt_init, dt_scale, dt_init_floor
        Initial step, see :func:`modules.ssm.initialisation.init_step_`.
    conv_bias, bias : bool
        Biases of the convolution, and of the outer projections.
    dt_bc_norm : bool
        Normalise the step, B and C with RMSNorm before they are used: the remedy of Jamba (arXiv 2403.19887,
        section 6.4) for large models that diverge in bf16. Adds the parameters ``dt_norm``, ``b_norm``, ``c_norm``.

    Raises
    ------
    ValueError
        If a size is no whole number of 1 or more, or a step no number above 0.

    Example
    -------
    >>> import torch
    >>> from modules.ssm import Mamba
    >>> block = Mamba(d_model=16).eval()
    >>> x = torch.randn(2, 10, 16)
    >>> y, state = block(x[:, :6], return_state=True)
    >>> whole = torch.cat([y, block(x[:, 6:], state=state)], dim=1)
    >>> torch.allclose(whole, block(x), atol=1e-5)
    True
    """

    # suffixes of the parameter names, one a direction
    _suffixes = ("",)

    def __init__(
        self,
        d_model,
        d_state=16,
        d_conv=4,
        expand=2,
        dt_rank="auto",
        dt_min=0.001,
        dt_max=0.1,
        dt_init="random",
        dt_scale=1.0,
        dt_init_floor=1e-4,
        conv_bias=True,
        bias=False,
        dt_bc_norm=False,
    ):
        super().__init__()
        for name, size in (("d_model", d_model), ("d_state", d_state), ("d_conv", d_conv)):
            check_count(name, size)
        check_positive("expand", expand)
        check_count("expand * d_model", int(expand * d_model))
        if dt_rank != "auto":
            check_count("dt_rank", dt_rank)
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.d_inner = int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self._step_options = {
            "dt_min": dt_min,
            "dt_max": dt_max,
            "dt_init": dt_init,
            "dt_scale": dt_scale,
            "dt_init_floor": dt_init_floor,
        }
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias)
        for suffix in self._suffixes:
            self._add_direction(suffix, conv_bias)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)
        self.dt_norm = RMSNorm(self.dt_rank) if dt_bc_norm else None
        self.b_norm = RMSNorm(d_state) if dt_bc_norm else None
        self.c_norm = RMSNorm(d_state) if dt_bc_norm else None
        self.reset_ssm_parameters()

    def _add_direction(self, suffix, conv_bias):
        inner = self.d_inner
        conv = nn.Conv1d(
            inner, inner, self.d_conv, groups=inner, padding=self.d_conv - 1, bias=conv_bias
        )
        self.add_module(f"conv1d{suffix}", conv)
        self.add_module(
            f"x_proj{suffix}", nn.Linear(inner, self.dt_rank + 2 * self.d_state, bias=False)
        )
        self.add_module(f"dt_proj{suffix}", nn.Linear(self.dt_rank, inner, bias=True))
        self.register_parameter(_a_log(suffix), nn.Parameter(torch.empty(inner, self.d_state)))
        self.register_parameter(f"D{suffix}", nn.Parameter(torch.empty(inner)))

    def reset_ssm_parameters(self):
        """Set A, D and the step to their initial values again, whatever ran over them since."""
        for suffix in self._suffixes:
            A_log, D = getattr(self, _a_log(suffix)), getattr(self, f"D{suffix}")
            dt_proj = getattr(self, f"dt_proj{suffix}")
            init_state_matrix_(A_log)
            nn.init.ones_(D)
            init_step_(dt_proj, self.dt_rank, **self._step_options)
            A_log._no_weight_decay = D._no_weight_decay = dt_proj.bias._no_weight_decay = True

    def initial_state(self, batch, device=None, dtype=None):
        """The state before the first frame: zeros for ``batch`` utterances."""
        check_count("batch", batch, least=0)
        weight = self.in_proj.weight
        device = weight.device if device is None else device
        return MambaState(
            torch.zeros(
                batch, self.d_inner, self.d_conv, device=device, dtype=dtype or weight.dtype
            ),
            torch.zeros(
                batch, self.d_inner, self.d_state, device=device, dtype=_state_dtype(weight)
            ),
        )

    def forward(self, x, lengths=None, state=None, return_state=False):
        """Run the block over a batch of utterances, or over the next chunk of each.

        Arguments
        ---------
        x : torch.Tensor
            (batch, time, d_model).
        lengths : torch.Tensor, optional
            (batch,) integer frame counts; frames past them give 0 (the output bias, if there is one, included)
            and change nothing.
        state : MambaState, optional
            What the previous chunk returned.
        return_state : bool
            Also return the state after the last valid frame of this chunk.

        Returns
        -------
        torch.Tensor or (torch.Tensor, MambaState)
            (batch, time, d_model).

        Raises
        ------
        ValueError
            If an argument has another type, shape or device.
        """
        self._check(x, state)
        return self._run(x, lengths, state, return_state)

    def _check(self, x, state):
        """Raise ``ValueError`` unless the block can take the input and the state."""
        check_module_input("x", x, self.in_proj.weight, ("batch", "time", "d_model"))
        self._check_state(x, state)

    def _check_state(self, x, state):
        if state is None:
            return
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise ValueError(
                "state must be a MambaState (conv, ssm), as forward returns it with return_state=True; "
                f"got {type(state).__name__}"
            )
        conv, ssm = state
        batch, device = x.shape[0], x.device
        check_tensor("state.conv", conv, (batch, self.d_inner, self.d_conv), device)
        check_tensor("state.ssm", ssm, (batch, self.d_inner, self.d_state), device)

    def _run(self, x, lengths, state, return_state, **mix_options):
        """:meth:`forward` behind its checks."""
        inner, z = self.in_proj(x).chunk(2, dim=-1)
        y, new_state = self._mix(inner, z, lengths, state, **mix_options)
        out = self.out_proj(y)
        if self.out_proj.bias is not None:
            out = keep_valid(out, valid_frames(lengths, x.shape[1], x.device))
        return (out, new_state) if return_state else out

    def _mix(self, inner, z, lengths, state):
        """From the projected input to what the output projection takes, and the state to carry."""
        conv_state, ssm_state = (None, None) if state is None else state
        u, conv_state = self._convolve(inner, lengths, conv_state)
        delta, A, B, C, D, bias = self._scan_inputs(u, "")
        y, ssm_state = selective_scan(
            u,
            delta,
            A,
            B,
            C,
            D,
            z,
            bias,
            delta_softplus=True,
            lengths=lengths,
            initial_state=ssm_state,
            return_last_state=True,
        )
        return y, MambaState(conv_state, ssm_state)

    def _convolve(self, inner, lengths, state):
        """What the forward scan takes in, and the state of the convolution to carry."""
        return causal_conv1d(
            inner,
            self.conv1d.weight,
            self.conv1d.bias,
            "silu",
            lengths=lengths,
            initial_state=state,
            return_last_state=True,
        )

    def _scan_inputs(self, u, suffix):
        """What one direction's scan takes besides its input ``u``: delta, A, B, C, D and the step's bias."""
        dt, B, C = getattr(self, f"x_proj{suffix}")(u).split(
            [self.dt_rank, self.d_state, self.d_state], dim=-1
        )
        if self.dt_norm is not None:
            dt, B, C = self.dt_norm(dt), self.b_norm(B), self.c_norm(C)
        dt_proj = getattr(self, f"dt_proj{suffix}")
        A = -torch.exp(at_least_float32(getattr(self, _a_log(suffix))))
        D = at_least_float32(getattr(self, f"D{suffix}"))
        return F.linear(dt, dt_proj.weight), A, B, C, D, at_least_float32(dt_proj.bias)

    def final_state(self, x, lengths=None, state=None):
        """The state after the last valid frame, for who needs no outputs: half the projections fall away.

        Arguments
        ---------
        x, lengths, state
            As for :meth:`forward`.

        Returns
        -------
        MambaState
            What :meth:`forward` returns with ``return_state``; of a :class:`BiMamba`, its forward branch's.
        """
        self._check(x, state)
        weight, bias = self.in_proj.weight, self.in_proj.bias
        inner = F.linear(x, weight[: self.d_inner], None if bias is None else bias[: self.d_inner])
        conv_state, ssm_state = (None, None) if state is None else state
        u, conv_state = self._convolve(inner, lengths, conv_state)
        delta, A, B, C, _, bias = self._scan_inputs(u, "")
        _, ssm_state = selective_scan(
            u,
            delta,
            A,
            B,
            C,
            delta_bias=bias,
            delta_softplus=True,
            lengths=lengths,
            initial_state=ssm_state,
            return_last_state=True,
        )
        return MambaState(conv_state, ssm_state)

    def step(self, x_t, state):
        """One frame.

        Arguments
        ---------
        x_t : torch.Tensor
            (batch, d_model).
        state : MambaState

        Returns
        -------
        (torch.Tensor, MambaState)
            (batch, d_model), and the state after the frame; the one given is left as it was.

        Raises
        ------
        ValueError
            If an argument has another type, shape or device.
        """
        check_module_input("x_t", x_t, self.in_proj.weight, ("batch", "d_model"))
        self._check_state(x_t, state)
        y, state = self._run(x_t.unsqueeze(1), None, state, True)
        return y.squeeze(1), state


class BiMamba(Mamba):
    """Bidirectional Mamba block ("v2"): one input and one output projection, two branches, their mean.

    The second branch (``conv1d_b``, ``x_proj_b``, ``dt_proj_b``, ``A_b_log``, ``D_b``) runs from each utterance's last
    frame to its first. Arguments, lengths and state are :class:`Mamba`'s; the state that is taken and
    returned is the forward branch's, so that a chunk sees all of the past and the future within itself.
    There is no ``step``: one frame has no future.

    Arguments
    ---------
    average : bool
        Whether the branches are averaged, as in every published recipe, or summed.
    **mamba_options
        Those of :class:`Mamba`.

    Example
    -------
    >>> import torch
    >>> from modules.ssm import BiMamba
    >>> BiMamba(d_model=16)(torch.randn(2, 10, 16), lengths=torch.tensor([10, 7])).shape
    torch.Size([2, 10, 16])
    """

    _suffixes = ("", "_b")
    step = None

    def __init__(self, d_model, average=True, **mamba_options):
        super().__init__(d_model, **mamba_options)
        self.average = average

    def _mix(self, inner, z, lengths, state):
        conv_state, ssm_state = (None, None) if state is None else state
        # no state goes to the backward branch: what is to come cannot be carried
        *u, conv_state = bidirectional_conv1d(
            inner,
            (self.conv1d.weight, self.conv1d_b.weight),
            (self.conv1d.bias, self.conv1d_b.bias),
            "silu",
            lengths=lengths,
            initial_state=conv_state,
        )
        branches = (
            self._scan_inputs(u_, suffix) for u_, suffix in zip(u, self._suffixes, strict=True)
        )
        delta, A, B, C, D, bias = zip(*branches, strict=True)
        y, ssm_state = bidirectional_scan(
            u,
            delta,
            A,
            B,
            C,
            D,
            z,
            bias,
            delta_softplus=True,
            lengths=lengths,
            initial_state=ssm_state,
            return_last_state=True,
        )
        return (0.5 * y if self.average else y), MambaState(conv_state, ssm_state)


def _a_log(suffix):
    return "A_b_log" if suffix else "A_log"


def _state_dtype(weight):
    return torch.float64 if weight.dtype == torch.float64 else torch.float32
