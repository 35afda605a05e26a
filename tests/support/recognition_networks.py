"""Small recognition networks of every kind: encoders with CTC, and sequence-to-sequence recognisers."""

from speechbrain.nnet.linear import Linear

from modules.asr.ctc import ConformerCTCEncoder, ConmambaCTCEncoder, CTCRecognizer
from modules.asr.s2s import S2SRecognizer
from modules.asr.transformer import S2STransformer
from modules.frontend import ConvolutionSubsampling

MAMBA = {"d_state": 16, "expand": 2, "d_conv": 4, "bidirectional": True}
# encoders and decoders of a sequence-to-sequence recogniser
PAIRS = [(e, d) for e in ("conmamba", "conformer") for d in ("transformer", "mamba")]
VOCABULARY = 11

CTC_SIZES = {
    "input_size": 20,
    "d_model": 16,
    "d_ffn": 24,
    "num_encoder_layers": 2,
    "kernel_size": 7,
}
# a constructor each: ConMamba, and the Conformer with each of its attentions
CTC_ENCODERS = {
    "conmamba": lambda: ConmambaCTCEncoder(**CTC_SIZES),
    **{
        attention: lambda attention=attention: ConformerCTCEncoder(
            **CTC_SIZES, nhead=2, attention_type=attention
        )
        for attention in ("RelPosMHAXL", "regularMHA", "RoPEMHA")
    },
}


def ctc_recognizer(encoder):
    """A CTC recogniser of 20 features a frame, in eval mode."""
    cnn = ConvolutionSubsampling(
        (8, 10, 20), out_channels=(8, 4), kernel_sizes=(3, 3), strides=(2, 2)
    )
    output = Linear(input_size=16, n_neurons=VOCABULARY)
    return CTCRecognizer(cnn, CTC_ENCODERS[encoder](), output).eval()


def transformer(encoder="conmamba", decoder="transformer", **options):
    """The two-layer network of a recogniser, of 12 features a frame."""
    sizes = {"input_size": 12, "d_model": 16, "nhead": 2, "d_ffn": 24, "kernel_size": 7}
    sizes |= {"num_encoder_layers": 2, "num_decoder_layers": 2, "dropout": 0.1, "max_length": 40}
    modules = {"encoder_module": encoder, "decoder_module": decoder, "mamba_config": MAMBA}
    return S2STransformer(VOCABULARY, **{**sizes, **modules, **options})


def recognizer(net, features=80, channels=(64, 32), vocabulary=VOCABULARY, d_model=16, **options):
    """A sequence-to-sequence recogniser around ``net``."""
    cnn = ConvolutionSubsampling(
        (8, 10, features),
        num_blocks=2,
        num_layers_per_block=1,
        out_channels=channels,
        kernel_sizes=(3, 3),
        strides=(2, 2),
        residuals=(False, False),
    )
    outputs = (Linear(input_size=d_model, n_neurons=vocabulary) for _ in range(2))
    return S2SRecognizer(cnn, net, *outputs, **options)
