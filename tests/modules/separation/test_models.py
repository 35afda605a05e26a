"""Separation networks: the published ones to the last digit, and what corrected mode promises beyond."""

import pytest
import torch
from speechbrain.lobes.models.dual_path import Decoder, Encoder
from torch.nn import functional as F

from modules.separation.dual_path import DPMambaMaskNet, SepFormerMaskNet, chunk_counts
from modules.separation.mask_net import MaskNet
from modules.separation.separator import SeparationNetwork, encoded_frames, initialise_separator_
from modules.separation.si_snr import pit_si_snr
from modules.ssm import BiMamba, Mamba, MambaStack
from tests.support.golden import Golden
from tests.support.separation_networks import (
    CHANNELS,
    CHUNK,
    MASK_NETS,
    SIZES,
    around,
    assert_near,
    every_kind,
    perturbed,
    tiny,
)

GOLDENS = (
    "mambatasnet",
    "mambatasnet_bottleneck_softmax",
    "mambatasnet_causal",
    "dpmamba_noskip",
    "dpmamba_skip",
    "dpmamba_skipnblock",
    "sepformer",
)


def from_meta(meta, fidelity):
    """The network that a golden was recorded from."""
    if "enc_dim" in meta:
        names = ("enc_dim", "bot_dim", "n_spk", "n_mamba", "bidirectional", "mask_nonlinear")
        names += ("d_state", "expand", "d_conv", "rms_norm", "residual_in_fp32", "fused_add_norm")
        masknet = MaskNet(**{k: meta[k] for k in names if k in meta}, fidelity=fidelity)
        return around(masknet, meta["enc_dim"], meta["kernel_size"])
    names = ("num_spks", "in_channels", "out_channels", "num_layers", "K", "skip_around_intra")
    options = {k: meta[k] for k in names} | {"fidelity": fidelity}
    if "mamba" in meta:
        options |= {k: v for k, v in meta["mamba"].items() if k != "d_model"}
        masknet = DPMambaMaskNet(**options, skip_n_block=meta.get("skip_n_block", 0))
    else:
        block, layers = meta["block"], {}
        layers["intra_layers"] = layers["inter_layers"] = block["num_layers"]
        options |= {k: block[k] for k in ("nhead", "d_ffn", "dropout")}
        masknet = SepFormerMaskNet(**options, **layers)
    return around(masknet, meta["in_channels"], meta["kernel_size"])


@pytest.mark.parametrize("name", GOLDENS)
@pytest.mark.parametrize("fidelity", ["upstream", "corrected"])
def test_goldens_are_reproduced_in_both_fidelities(name, fidelity):
    with Golden(f"sep_{name}") as golden, torch.no_grad():
        model = from_meta(golden.meta, fidelity)
        state = golden.state_dict()
        # the sinusoids are not recorded: they follow from the sizes
        tables = {k: v for k, v in model.state_dict().items() if k.endswith("pos_enc.pe")}
        assert len(tables) == (4 if name == "sepformer" else 0) and not tables.keys() & state
        model.load_state_dict(state | tables, strict=True)
        mix, edge, targets = (golden[f"input/{k}"] for k in ("mix", "mix_edge", "sources"))
        for whole in (False, True):
            counts = [torch.tensor([m.shape[1]] * 2) if whole else None for m in (mix, edge)]
            sources = model(mix, counts[0])
            golden.compare("output/est_source", sources, 2e-5)
            golden.compare("output/est_source_edge", model(edge, counts[1]), 2e-5)
            golden.compare("output/est_source_batch1", model(mix[:1]), 2e-5)
        encoded = model.encoder(mix)
        golden.compare("output/enc", encoded)
        golden.compare("output/est_mask", model.masknet(encoded), 2e-5)
        # of recorded waves, to 1e-4 dB: float32 sums of energies are exact to 2e-5
        unseparated = mix.unsqueeze(2).expand_as(targets)
        for key, waves in (("", golden["output/est_source"]), ("_of_mix", unseparated)):
            value = -pit_si_snr(waves, targets)[0]
            golden.compare_within(f"output/pit_neg_sisnr{key}", value, 1e-4)


def published(name):
    """The network of a published file, from its hyperparameters."""
    h = SIZES[name]["hparams"]
    channels = h["N_encoder_out"]
    options = {"num_spks": h["num_spks"], "in_channels": channels, "out_channels": channels}
    if name == "sepformer":
        # layers, heads and chunks are not among the recorded values; the size confirms the first
        layers = {"intra_layers": 8, "inter_layers": 8, "nhead": 8, "d_ffn": 1024}
        return around(SepFormerMaskNet(num_layers=2, K=250, **layers, **options), channels)
    stack = {"bidirectional": h["bidirectional"], "d_state": h["ssm_dim"]}
    stack |= {"expand": h["mamba_expand"], "d_conv": h["mamba_conv"], "rms_norm": h["rms_norm"]}
    if name.startswith("dpmamba"):
        sizes = {"num_layers": h["n_dp"], "K": h["chunk_size"], "n_mamba": h["n_mamba_dp"] // 2}
        skips = {k: h[k] for k in ("skip_around_intra", "skip_n_block")}
        return around(DPMambaMaskNet(**options, **sizes, **skips, **stack), channels)
    masknet = MaskNet(channels, h["out_channels"], h["num_spks"], h["n_mamba"], **stack)
    return around(masknet, channels)


def count(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes_to_the_unit(name):
    assert len(SIZES) == 9
    wanted = SIZES[name]
    with torch.device("meta"):  # sizes without numbers
        model = published(name)
    assert count(model) == wanted["total_trainable"]
    parts = {part: count(child) for part, child in model.named_children()}
    assert parts == wanted["modules"]
    children = {part: count(child) for part, child in model.masknet.named_children()}
    assert children == wanted["masknet_children"]
    if "per_dual_block" in wanted:
        assert {count(block) for block in model.masknet.dual_mdl} == {wanted["per_dual_block"]}


def length_pairs(pairs=50, longest=330):
    """Two sample counts each; among them too short for a frame, and frames that end on a chunk or half of one."""
    random = torch.Generator().manual_seed(5)
    for pair in range(pairs):
        lengths = torch.randint(1, longest, (2,), generator=random)
        if pair % 5 == 0:
            frames = CHUNK // 2 * (1 + pair // 5 % 8)
            lengths[pair % 2] = 16 + 8 * (frames - 1) + pair % 8
        yield lengths


@every_kind
def test_a_padded_batch_gives_the_sources_of_each_mixture_alone(kind):
    model = tiny(kind)
    silent = vanishing = 0
    with torch.no_grad():
        for samples in length_pairs():
            time = int(samples.max()) + 3
            mix = torch.randn(2, time)
            for item, length in enumerate(samples.tolist()):
                mix[item, length:] = torch.nan if item else 1e3
            sources = model(mix, samples)
            for item, length in enumerate(samples.tolist()):
                alone = model(mix[item : item + 1, :length])[0]
                assert_near(sources[item, :length], alone)
                assert not sources[item, length:].any()
                frames = encoded_frames(length, 16, 8)
                silent += frames == 0
                vanishing += frames > 0 and (frames + CHUNK // 2) % CHUNK == 0
    assert silent and vanishing


@every_kind
def test_published_padding_makes_a_mixture_depend_on_its_neighbour(kind):
    model = tiny(kind, fidelity="upstream")
    mix, samples = torch.randn(2, 320), torch.tensor([320, 160])
    mix[1, 160:] = 0
    with torch.no_grad():
        sources, alone = model(mix, samples)[1, :144], model(mix[1:, :160])[0, :144]
        assert torch.equal(model(mix, samples), model(mix))
    # the causal one reads no padding, whatever it is told
    assert torch.allclose(sources, alone, atol=1e-6) == (kind == "causal")


@every_kind
def test_what_stands_in_the_padding_changes_no_gradient(kind):
    model, samples = tiny(kind).train(), torch.tensor([250, 131])
    mix, gradients = torch.randn(2, 260), []
    for padding in (0.0, torch.nan):
        mix[0, 250:] = mix[1, 131:] = padding
        model.zero_grad()
        model(mix, samples).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-5) and gradients[0].any()


@every_kind
def test_gradients_of_a_padded_batch_are_the_sum_of_those_alone(kind):
    model, samples = tiny(kind).double(), torch.tensor([330, 200, 9])
    mix, gradients = torch.randn(3, 330).double(), []
    for batches in ([slice(0, 3)], [slice(0, 1), slice(1, 2), slice(2, 3)]):
        model.zero_grad()
        for batch in batches:
            model(mix[batch], samples[batch]).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert_near(*gradients, 1e-7)


@pytest.mark.parametrize("chunk", [2, 7, 10])
def test_chunks_are_counted_as_speechbrain_cuts_them(chunk):
    net = DPMambaMaskNet(2, 4, 4, num_layers=1, K=chunk, n_mamba=1, skip_around_intra=True)
    for frames in (*range(1, 26), 99, 100):
        cut, _ = net._Segmentation(torch.ones(1, 4, frames), chunk)
        assert chunk_counts(frames, chunk) == cut.shape[3], frames


@pytest.mark.parametrize("options", [{}, {"dt_bc_norm": True}, {"mask_nonlinear": "softmax"}])
def test_later_samples_change_nothing_before_one_kernel_ago_in_the_causal_network(options):
    model = perturbed(around(MaskNet(CHANNELS, 8, 2, 2, bidirectional=False, **options)))
    both_ways = perturbed(around(MaskNet(CHANNELS, 8, 2, 2, **options)))
    mix = torch.randn(1, 400)
    with torch.no_grad():
        for time in (150, 203, 399):
            later = mix.clone()
            later[:, time:] = torch.randn(1, 400 - time)
            seen = time - model.kernel_size + 1
            assert torch.allclose(model(mix)[:, :seen], model(later)[:, :seen], atol=1e-6)
            if time < 390:
                before, after = both_ways(mix)[:, :seen], both_ways(later)[:, :seen]
                assert not torch.allclose(before, after, atol=1e-4)
                assert not torch.allclose(model(mix), model(later), atol=1e-4)


def test_carried_states_give_the_masks_of_the_whole():
    net = MASK_NETS["causal"]().eval()
    encoded = torch.rand(2, CHANNELS, 23)
    with torch.no_grad():
        states, parts = None, []
        for part in encoded.split([1, 9, 13], 2):
            masks, states = net(part, states=states, return_states=True)
            parts.append(masks)
        assert_near(torch.cat(parts, 3), net(encoded), 1e-5)


@pytest.mark.parametrize("options", [{}, {"dt_bc_norm": True}, {"residual_in_fp32": True}])
@pytest.mark.parametrize("name", MASK_NETS)
@pytest.mark.parametrize(
    "dtype, of_outputs, of_gradients", [(torch.float16, 0.005, 0.05), (torch.bfloat16, 0.03, 0.5)]
)
def test_under_autocast_outputs_and_gradients_stay_near_float32_in_silence_and_padding_too(
    name, options, dtype, of_outputs, of_gradients
):
    model = tiny(name, **(options if name != "sepformer" else {})).train()
    mix, samples = 0.1 * torch.randn(3, 400), torch.tensor([400, 301, 350])
    mix[0, 100:250] = mix[2] = 0  # silence within a mixture, and a silent mixture
    outputs, gradients = [], []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=enabled):
            sources = model(mix, samples)
        sources.float().square().sum().backward()
        outputs.append(sources.detach().float())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    for (wanted, narrow), allowed in ((outputs, of_outputs), (gradients, of_gradients)):
        assert (narrow - wanted).norm() < allowed * wanted.norm()


def test_under_bfloat16_autocast_the_scan_is_computed_in_float32():
    net = MASK_NETS["causal"](n_mamba=2, residual_in_fp32=True, dt_bc_norm=True)
    with torch.autocast("cpu", torch.bfloat16):
        _, states = net(torch.rand(2, CHANNELS, 30), return_states=True)
    for state in states:
        assert state.ssm.dtype == torch.float32
        # what had been computed in bfloat16 would come back from it unchanged
        assert (state.ssm != state.ssm.bfloat16().float()).any()


@pytest.mark.parametrize("rms_norm", [True, False])
def test_a_float32_residual_loses_less_under_autocast_and_in_a_bfloat16_network(rms_norm):
    x = 100 * torch.randn(2, 40, 16)
    errors = {}
    for wide in (False, True):
        torch.manual_seed(1)
        stack = MambaStack(8, 16, rms_norm=rms_norm, residual_in_fp32=wide)
        with torch.no_grad():
            wanted = stack(x.bfloat16().float())
            with torch.autocast("cpu", torch.bfloat16):
                mixed = stack(x.bfloat16())
            narrow = stack.bfloat16()(x.bfloat16())
        assert narrow.dtype == torch.bfloat16
        assert mixed.dtype == (torch.float32 if wide else torch.bfloat16)
        errors[wide] = [(out.float() - wanted).square().mean() for out in (mixed, narrow)]
    assert errors[True][0] < 0.5 * errors[False][0] and errors[True][1] < errors[False][1]


@every_kind
def test_networks_compute_in_float64_where_they_are_asked_to(kind):
    model, mix = tiny(kind).double(), torch.randn(2, 300).double()
    with torch.no_grad():
        for samples in (None, torch.tensor([300, 180])):
            sources = model(mix, samples)
            nudged = model(mix * (1 + 1e-10), samples)
            assert sources.dtype == torch.float64
            # nothing on the way is rounded to float32
            assert 0 < (nudged - sources).abs().max() < 1e-7 * sources.abs().max()


@pytest.mark.parametrize("name", ["mambatasnet", "causal", "dpmamba"])
def test_state_space_parameters_survive_corrected_initialisation_and_steps_not_the_published(name):
    for fidelity in ("corrected", "upstream"):
        model = around(
            MASK_NETS[name](fidelity=fidelity, n_mamba=2) if "dp" not in name else MASK_NETS[name]()
        )
        drawn = {k: v.clone() for k, v in model.state_dict().items()}
        initialise_separator_(model, fidelity)
        if fidelity == "corrected":
            assert all(torch.equal(v, drawn[k]) for k, v in model.state_dict().items())
        for block in (m for m in model.modules() if isinstance(m, Mamba)):
            for suffix in ("", "_b")[: 1 + isinstance(block, BiMamba)]:
                A = torch.exp(getattr(block, "A_b_log" if suffix else "A_log"))
                assert torch.allclose(A, torch.arange(1.0, 5.0).expand_as(A))
                assert (getattr(block, f"D{suffix}") == 1).all()
                dt = F.softplus(getattr(block, f"dt_proj{suffix}").bias)
                inside = bool(((dt > 0.9e-3) & (dt < 0.11)).all())
                assert inside == (fidelity == "corrected")


@pytest.mark.parametrize("name", ["dpmamba", "sepformer"])
def test_dual_blocks_begin_with_weights_of_their_own_but_in_the_published_system(name):
    for fidelity in ("corrected", "upstream"):
        first, second = MASK_NETS[name](fidelity=fidelity).dual_mdl
        pairs = zip(first.parameters(), second.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == (fidelity == "upstream")
        assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


@every_kind
@pytest.mark.parametrize("speakers", [1, 2, 3])
def test_every_number_of_speakers_and_the_shortest_mixtures_keep_their_shape(kind, speakers):
    model = tiny(kind, speakers)
    for batch, time in ((1, 16), (1, 15), (2, 1), (1, 161), (3, 40)):
        sources = model(torch.randn(batch, time))
        assert sources.shape == (batch, time, speakers)
        assert bool(sources.any()) == (time >= 16)
        assert torch.isfinite(sources).all()


BAD = {
    "n_spk": lambda: MaskNet(8, 8, 0, 1),
    "n_mamba": lambda: MaskNet(8, 8, 2, 0),
    "mask_nonlinear": lambda: MaskNet(8, 8, 2, 1, mask_nonlinear="sigmoid"),
    "fidelity": lambda: MaskNet(8, 8, 2, 1, fidelity="published"),
    "num_spks": lambda: DPMambaMaskNet(0, 8, 8, 1, 10, 1, True),
    "num_layers": lambda: DPMambaMaskNet(2, 8, 8, 1.5, 10, 1, True),
    "chunk_size": lambda: DPMambaMaskNet(2, 8, 8, 1, 1, 1, True),
    "skip_n_block": lambda: DPMambaMaskNet(2, 8, 8, 1, 10, 1, True, skip_n_block=-1),
    "nhead": lambda: SepFormerMaskNet(2, 8, 8, 1, 10, 1, 1, 3, 16),
    "d_ffn": lambda: SepFormerMaskNet(2, 8, 8, 1, 10, 1, 1, 2, 0),
    "kernel_size": lambda: around(MASK_NETS["causal"](), kernel=15),
    "N_encoder_out": lambda: SeparationNetwork(
        Encoder(16, CHANNELS), MASK_NETS["causal"](), Decoder(8, 1, kernel_size=16, stride=8)
    ),
}


@pytest.mark.parametrize("option", BAD)
def test_a_wrong_argument_is_one_error_that_names_it(option):
    with pytest.raises(ValueError, match=option):
        BAD[option]()


def test_wrong_inputs_are_one_error_each():
    model = tiny("mambatasnet")
    with pytest.raises(ValueError, match=r"\(batch, time\)"):
        model(torch.randn(2, 1, 100))
    for samples in (torch.tensor([1.0, 0.5]), torch.tensor([100, 101]), torch.tensor([100])):
        with pytest.raises(ValueError, match="lengths must"):
            model(torch.randn(2, 100), samples)
    with pytest.raises(ValueError, match="fidelity"):
        SeparationNetwork(model.encoder, MASK_NETS["causal"](fidelity="upstream"), model.decoder)
    with pytest.raises(ValueError, match="positions for 2500 steps"):
        MASK_NETS["sepformer"]()(torch.rand(1, CHANNELS, 2500 * CHUNK // 2))
