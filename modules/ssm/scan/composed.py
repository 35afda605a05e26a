"""What the compiled backends of the scan share: the schema of a direction, and both directions by two calls."""


def direction(suffix="", kind="Tensor"):
    """PyTorch's schema of one direction's tensors; ``kind="Tensor?"`` for a direction that may be absent."""
    given = ", ".join(f"{kind} {name}{suffix}" for name in ("u", "delta", "A", "B", "C"))
    return f"{given}, Tensor? D{suffix}, Tensor? delta_bias{suffix}"


def composed(scan):
    """Both directions by two calls of ``scan``.

    Arguments
    ---------
    scan : callable
        With the signature of :func:`modules.ssm.scan.naive.selective_scan_naive`.

    Returns
    -------
    callable
        With the signature of :func:`modules.ssm.bidirectional_scan`, which gives the output and the forward
        direction's last state.
    """

    def both(
        u,
        delta,
        A,
        B,
        C,
        D=None,
        z=None,
        delta_bias=None,
        delta_softplus=False,
        *,
        lengths=None,
        initial_state=None,
    ):
        none = (None, None)
        directions = zip(u, delta, A, B, C, D or none, (z, z), delta_bias or none, strict=True)
        forward, backward = ((*tensors, delta_softplus) for tensors in directions)
        out, last_state = scan(*forward, lengths=lengths, initial_state=initial_state)
        return out + scan(*backward, lengths=lengths, reverse=True)[0], last_state

    return both
