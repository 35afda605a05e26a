"""A language model of Mamba blocks, for recognisers with a tokenizer of their own.

It stands where SpeechBrain's ``TransformerLM`` does (``forward`` takes tokens and gives logits), and
carries its state besides, so that the next token costs the same after 5 tokens and after 500.
Source: "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (arXiv 2312.00752), section 4.2.
"""

from torch import nn

from modules.ssm import MambaStack


class MambaLM(nn.Module):
    """Embedding, a pre-norm stack of causal Mamba blocks, and a projection onto the vocabulary.

    The model is causal and has no notion of padding: what stands to the right of a token does not
    reach it, so that batches padded on the right need no lengths.

    Arguments
    ---------
    vocab : int
        Tokens, the blank, start and end of a sentence included.
    d_model : int
        Channels.
    n_layers : int
        Mamba blocks.
    d_state, expand, d_conv : int
        Of the blocks; see :class:`modules.ssm.Mamba`.
    dropout : float
        On the embeddings, and on what the projection takes.
    tie_weights : bool
        Whether the projection is the embedding's matrix, and has no bias.
    dt_bc_norm : bool
        RMSNorm on the step, B and C, for large models that diverge in bf16.

    Raises
    ------
    ValueError
        If there is no block, or not even the three special tokens.

    Example
    -------
    >>> import torch
    >>> from modules.asr.lm import MambaLM
    >>> lm = MambaLM(vocab=20, d_model=16, n_layers=2).eval()
    >>> tokens = torch.randint(3, 20, (2, 5))
    >>> logits = lm(tokens)
    >>> logits.shape
    torch.Size([2, 5, 20])
    >>> state = lm.initial_state(batch=2)
    >>> for token in tokens.unbind(1):
    ...     last, state = lm.step(token, state)
    >>> torch.allclose(last, logits[:, -1], atol=1e-5)
    True
    """

    def __init__(
        self,
        vocab,
        d_model=512,
        n_layers=12,
        d_state=16,
        expand=2,
        d_conv=4,
        dropout=0.1,
        tie_weights=False,
        dt_bc_norm=False,
    ):
        super().__init__()
        if n_layers < 1 or vocab < 4:
            raise ValueError(
                "a language model needs n_layers of 1 or more and a vocab (output_neurons) of 4 or more; "
                f"got {n_layers} and {vocab}"
            )
        self.vocab, self.d_model = vocab, d_model
        self.embedding = nn.Embedding(vocab, d_model)
        self.dropout = nn.Dropout(dropout)
        self.stack = MambaStack(
            n_mamba=n_layers,
            d_model=d_model,
            bidirectional=False,
            d_state=d_state,
            expand=expand,
            d_conv=d_conv,
            dt_bc_norm=dt_bc_norm,
        )
        self.output_proj = nn.Linear(d_model, vocab, bias=not tie_weights)
        # the published Mamba language model's, which GPT-2 had before
        nn.init.normal_(self.embedding.weight, std=0.02)
        if tie_weights:
            self.output_proj.weight = self.embedding.weight

    def forward(self, tokens):
        """Logits of the next token after every prefix.

        Arguments
        ---------
        tokens : torch.Tensor
            (batch, tokens); each sentence begins with its start token.

        Returns
        -------
        torch.Tensor
            (batch, tokens, vocab).
        """
        # SpeechBrain's TransformerLMScorer hands over whole numbers as floats
        x = self.dropout(self.embedding(tokens.long()))
        return self.output_proj(self.dropout(self.stack(x)))

    def initial_state(self, batch):
        """The state before the first token of ``batch`` sentences: one :class:`MambaState` a block."""
        return [layer["mixer"].initial_state(batch) for layer in self.stack.layers]

    def step(self, tokens, state):
        """Logits of the token after one more.

        Arguments
        ---------
        tokens : torch.Tensor
            (batch,) integers.
        state : list of MambaState
            Of :meth:`initial_state` or the step before; it is left as it was.

        Returns
        -------
        (torch.Tensor, list of MambaState)
            (batch, vocab), and the state after these tokens.
        """
        residual = self.dropout(self.embedding(tokens))
        carried = []
        for layer, layer_state in zip(self.stack.layers, state, strict=True):
            mixed, layer_state = layer["mixer"].step(layer["norm"](residual), layer_state)
            residual = residual + mixed
            carried.append(layer_state)
        return self.output_proj(self.dropout(self.stack.norm_f(residual))), carried
