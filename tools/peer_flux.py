"""A denoising step of FLUX.1-dev in PyTorch, compiled, beside `chipmunk bench flux`, in turn on one machine.

python peer_flux.py [--rounds 10] [--width 1280] [--height 768]
python peer_flux.py --program ../build-release/bin/chipmunk --visits 3
Needs nothing but PyTorch and peer_attention.py beside it: the transformer is written out here, with random weights,
compiled, on cuDNN's attention.
With a program, each visit times PyTorch, the program's dense step and PyTorch again, so that both see the same clock;
the ratio is that of a visit, then its median with the extremes.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import time

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from peer_attention import milliseconds, spread

NORM_EPSILON = 1e-6
TIME_CHANNELS = 256
IN_CHANNELS, TEXT_CHANNELS, POOLED_CHANNELS = 64, 4096, 768
AXES_DIMS = (16, 56, 56)


def rotate(x, cos, sin):
    """x [B, H, T, D]: neighbouring pairs turned by the angles of cos and sin, [T, D / 2]."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


def modulate(x, shift, scale):
    return functional.layer_norm(x, x.shape[-1:], eps=NORM_EPSILON) * (1 + scale) + shift


class Projections(nn.Module):
    """q, k and v of some rows, normed and by head: [B, H, T, D]."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads, head_dim = heads, channels // heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.q_norm, self.k_norm = (nn.RMSNorm(head_dim, eps=NORM_EPSILON) for _ in range(2))

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.q_norm(q), self.k_norm(k), v


def attend(q, k, v, rope):
    out = functional.scaled_dot_product_attention(rotate(q, *rope), rotate(k, *rope), v)
    return out.transpose(1, 2).flatten(2)


def feed_forward(channels):
    return nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU("tanh"), nn.Linear(4 * channels, channels))


class Stream(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.modulation = nn.Linear(channels, 6 * channels)
        self.projections = Projections(channels, heads)
        self.attention_out = nn.Linear(channels, channels)
        self.mlp = feed_forward(channels)


class DoubleBlock(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.text, self.image = Stream(channels, heads), Stream(channels, heads)

    def forward(self, text, image, conditioning, rope):
        streams = ((self.text, text), (self.image, image))
        modulations = [s.modulation(conditioning)[:, None].chunk(6, -1) for s, _ in streams]
        parts = [s.projections(modulate(x, m[0], m[1])) for (s, x), m in zip(streams, modulations)]
        joined = attend(*(torch.cat(pair, 2) for pair in zip(*parts)), rope)
        outputs = []
        for (s, x), m, rows in zip(streams, modulations, joined.split([text.shape[1], image.shape[1]], 1)):
            x = x + m[2] * s.attention_out(rows)
            outputs.append(x + m[5] * s.mlp(modulate(x, m[3], m[4])))
        return outputs


class SingleBlock(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.modulation = nn.Linear(channels, 3 * channels)
        self.projections = Projections(channels, heads)
        self.mlp_in = nn.Linear(channels, 4 * channels)
        self.out = nn.Linear(5 * channels, channels)

    def forward(self, x, conditioning, rope):
        shift, scale, gate = self.modulation(conditioning)[:, None].chunk(3, -1)
        normed = modulate(x, shift, scale)
        attention = attend(*self.projections(normed), rope)
        return x + gate * self.out(torch.cat((attention, functional.gelu(self.mlp_in(normed), approximate="tanh")), -1))


def embedder(in_features, channels):
    return nn.Sequential(nn.Linear(in_features, channels), nn.SiLU(), nn.Linear(channels, channels))


class Flux(nn.Module):
    def __init__(self, channels, heads, double_blocks, single_blocks):
        super().__init__()
        self.x_embedder, self.text_embedder = nn.Linear(IN_CHANNELS, channels), nn.Linear(TEXT_CHANNELS, channels)
        self.time, self.guidance = embedder(TIME_CHANNELS, channels), embedder(TIME_CHANNELS, channels)
        self.pooled = embedder(POOLED_CHANNELS, channels)
        self.double_blocks = nn.ModuleList(DoubleBlock(channels, heads) for _ in range(double_blocks))
        self.single_blocks = nn.ModuleList(SingleBlock(channels, heads) for _ in range(single_blocks))
        self.modulation, self.out = nn.Linear(channels, 2 * channels), nn.Linear(channels, IN_CHANNELS)

    def forward(self, latents, text, pooled, time_features, guidance_features, cos, sin):
        conditioning = self.time(time_features) + self.guidance(guidance_features) + self.pooled(pooled)
        conditioning = functional.silu(conditioning)
        image, text = self.x_embedder(latents), self.text_embedder(text)
        for block in self.double_blocks:
            text, image = block(text, image, conditioning, (cos, sin))
        joined = torch.cat((text, image), 1)
        for block in self.single_blocks:
            joined = block(joined, conditioning, (cos, sin))
        scale, shift = self.modulation(conditioning)[:, None].chunk(2, -1)
        return self.out(modulate(joined[:, text.shape[1] :], shift, scale))


def sinusoids(value, device):
    half = TIME_CHANNELS // 2
    frequencies = 10000.0 ** (-torch.arange(half, device=device) / half)
    angles = 1000.0 * value * frequencies
    return torch.cat((angles.cos(), angles.sin()))[None]


def rope_tables(text_tokens, rows, columns, axes_dims, device):
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in (1, rows, columns)), indexing="ij"), -1)
    positions = torch.cat((torch.zeros(text_tokens, 3), grid.reshape(-1, 3))).double()
    angles = [
        positions[:, axis, None] / 10000.0 ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        for axis, dim in enumerate(axes_dims)
    ]
    angles = torch.cat(angles, 1).to(device)
    return angles.cos().float(), angles.sin().float()


def make_step(options, double_blocks, single_blocks):
    """The model and its inputs, in bf16."""
    device, heads = options.device, options.heads
    channels = heads * sum(options.axes_dims)
    torch.manual_seed(1)
    with torch.device(device):
        model = Flux(channels, heads, double_blocks, single_blocks).to(torch.bfloat16).eval()
    rows, columns = options.height // 16, options.width // 16
    random = lambda *shape: torch.randn(*shape, device=device, dtype=torch.bfloat16)
    inputs = [
        random(1, rows * columns, IN_CHANNELS),
        random(1, options.text_tokens, TEXT_CHANNELS),
        random(1, POOLED_CHANNELS),
        sinusoids(0.5, device).to(torch.bfloat16),
        sinusoids(3.5, device).to(torch.bfloat16),
        *rope_tables(options.text_tokens, rows, columns, options.axes_dims, device),
    ]
    return model, inputs


def check(options):
    """Compiled bf16 is what the same code gives in f32."""
    model, inputs = make_step(options, 1, 1)
    with torch.no_grad():
        found = torch.compile(model)(*inputs).float()
        # cuDNN's attention does not take f32.
        with sdpa_kernel(SDPBackend.MATH):
            expected = model.float()(*(x.float() for x in inputs))
    error = ((found - expected).norm() / expected.norm()).item()
    print(f"compiled, one block of each kind: relative error {error:.2g} of f32")
    if not error < 0.03:
        raise SystemExit("peer_flux: expected a relative error below 0.03")


def time_once(body, device):
    if device == "cuda":
        return milliseconds(body)
    begin = time.perf_counter()
    body()
    return 1e3 * (time.perf_counter() - begin)


def run_program(options):
    command = [options.program, "bench", "flux", "--device", "cuda", "--no-text", "--no-vae", "--sparsity", "none"]
    command += ["--steps", "0", "--rounds", str(options.rounds), "-W", str(options.width), "-H", str(options.height)]
    command += ["--text-tokens", str(options.text_tokens), "--json", "--quiet"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout)["stages"][0]["median_ms"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--width", type=int, default=1280)
    arguments.add_argument("--height", type=int, default=768)
    arguments.add_argument("--text-tokens", type=int, default=512)
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    arguments.add_argument("--tiny", action="store_true", help="two heads and three blocks: to try the script")
    arguments.add_argument("--program", help="chipmunk, to be timed in turn")
    arguments.add_argument("--visits", type=int, default=3, help="how often the program is run")
    options = arguments.parse_args()
    options.heads, options.axes_dims = (2, (16, 24, 24)) if options.tiny else (24, AXES_DIMS)
    blocks = (1, 2) if options.tiny else (19, 38)

    attention = sdpa_kernel(SDPBackend.CUDNN_ATTENTION) if options.device == "cuda" else contextlib.nullcontext()
    with attention, torch.no_grad():
        check(options)
        model, inputs = make_step(options, *blocks)
        step = torch.compile(model)
        run = lambda: [time_once(lambda: step(*inputs), options.device) for _ in range(options.rounds)]
        for _ in range(3):
            step(*inputs)
        peer, ours, ratios = run(), [], []
        for _ in range(options.visits if options.program else 0):
            before = run()
            ours.append(run_program(options))
            after = run()
            ratios.append(statistics.median(before + after) / ours[-1])
            peer += before + after
    print(f"PyTorch {torch.__version__}, compiled, a step: {spread(peer, 2)} ms")
    if ours:
        print(f"chipmunk, a dense step: {spread(ours, 2)} ms, {spread(ratios, 2)} times as fast")


if __name__ == "__main__":
    main()
