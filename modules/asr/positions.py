"""Absolute positions of frames and tokens, from SpeechBrain's tables of sines.

A sequence that is longer than the table is refused by the name of its option. Decoding step by step adds the position
of each token.
"""


class AbsolutePositions:
    """The input half of a TransformerASR: projected frames and embedded tokens, with positions from any number on."""

    def _project(self, src, first=0):
        """What the encoder takes, (batch, time, d_model), for frames from number ``first`` on."""
        src = self.custom_src_module(src.flatten(2))
        if self.attention_type != "regularMHA":
            return src
        return src + self._positions(self.positional_encoding, first, src.shape[1], "frames")

    def _embed(self, tokens, first=0):
        """Scaled embeddings with positions from ``first`` on, (batch, tokens, d_model)."""
        own = self.attention_type == "regularMHA"
        table = self.positional_encoding if own else self.positional_encoding_decoder
        positions = self._positions(table, first, tokens.shape[1], "tokens")
        return self.custom_tgt_module(tokens) + positions

    def _positions(self, table, first, count, what):
        """Rows ``first`` to ``first + count`` of a table of positions, (1, count, d_model)."""
        rows = table.pe.shape[1]
        if first + count > rows:
            choose = "choose attention_type RelPosMHAXL or RoPEMHA"
            remedy = choose if what == "frames" else "lower max_decode_ratio"
            raise ValueError(
                f"{first + count} {what} do not fit the table of positions, max_length: {rows}; raise max_length (the "
                "table holds nothing learned: a trained model takes a longer one), cut the utterance into shorter "
                f"ones, or {remedy}"
            )
        return table.pe[:, first : first + count]

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # the table of sines is the same at any length: a checkpoint's own may be longer or shorter
        for name in ("positional_encoding", "positional_encoding_decoder"):
            key, own = f"{prefix}{name}.pe", getattr(getattr(self, name, None), "pe", None)
            if own is not None and key in state_dict and state_dict[key].shape != own.shape:
                state_dict[key] = own
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
