"""PyTorch's attention (cuDNN) and a large matmul beside `chipmunk bench kernels`, in turn on one machine.

python peer_attention.py [--preset hunyuan mid flux wan] [--rounds 10]
python peer_attention.py --program ../build-release/bin/chipmunk --visits 3
With a program, each visit times cuDNN, the program's kernels and cuDNN again, so that both see the same clock; ratios
are those of a visit, then their median with the extremes. FlashAttention-3 is not run: what stands of it is implied by
how much faster than cuDNN it was on this kind of chip (FLASH_ATTENTION_3).
"""

import argparse
import json
import statistics
import subprocess

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

PRESETS = {"hunyuan": (24, 119056), "mid": (24, 32768), "flux": (24, 4352), "wan": (40, 75600)}
# FlashAttention-3's rate over cuDNN's, measured apart on an H100.
FLASH_ATTENTION_3 = {"hunyuan": 1.26, "mid": 1.17, "flux": 1.08, "wan": 1.21}
HEAD_DIM = 128
CLOCK_SIZE = 8192


def milliseconds(body):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    body()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def peer_bodies(heads, tokens):
    x, y = (torch.randn(CLOCK_SIZE, CLOCK_SIZE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    q, k, v = (torch.randn(1, heads, tokens, HEAD_DIM, device="cuda", dtype=torch.bfloat16) for _ in range(3))

    def attend():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            torch.nn.functional.scaled_dot_product_attention(q, k, v)

    return {"cudnn attention": attend, "clock": lambda: x @ y}


def time_peers(bodies, rounds):
    for body in bodies.values():
        body()
    times = {kernel: [] for kernel in bodies}
    for _ in range(rounds):
        for kernel, body in bodies.items():
            times[kernel].append(milliseconds(body))
    return times


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def run_program(program, preset, rounds):
    command = [program, "bench", "kernels", "--preset", preset, "--rounds", str(rounds), "--device", "cuda", "--json", "--quiet"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return {(k["kernel"], k["kept"]): k["median_ms"] for k in json.loads(result.stdout)["kernels"]}


def compare(name, bodies, options):
    """Prints each kernel's time and how many times it is faster than dense attention by cuDNN, and FlashAttention-3."""
    ours, ratios = {}, {}
    for _ in range(options.visits):
        before = time_peers(bodies, options.rounds)["cudnn attention"]
        visit = run_program(options.program, name, options.rounds)
        after = time_peers(bodies, options.rounds)["cudnn attention"]
        for kernel, ms in visit.items():
            ours.setdefault(kernel, []).append(ms)
            ratios.setdefault(kernel, []).append(statistics.median(before + after) / ms)
    for kernel, ms in ours.items():
        implied = [ratio / FLASH_ATTENTION_3[name] for ratio in ratios[kernel]]
        print(
            f"{name:8} {kernel[0]:20} {100 * kernel[1]:5.1f} %  {spread(ms, 4)} ms"
            f"  x cuDNN dense {spread(ratios[kernel], 3)}  x FlashAttention-3 dense, implied {spread(implied, 3)}"
        )


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--preset", nargs="+", default=["flux"], choices=list(PRESETS))
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--program", help="chipmunk, to be timed in turn")
    arguments.add_argument("--visits", type=int, default=3, help="how often the program is run")
    options = arguments.parse_args()
    for name in options.preset:
        heads, tokens = PRESETS[name]
        bodies = peer_bodies(heads, tokens)
        flops = {"cudnn attention": 4.0 * heads * tokens**2 * HEAD_DIM, "clock": 2.0 * CLOCK_SIZE**3}
        for kernel, ms in time_peers(bodies, options.rounds).items():
            rate = flops[kernel] / statistics.median(ms) * 1e-9
            print(f"{name:8} {kernel:20} {'':7}  {spread(ms, 4)} ms  {rate:.0f} TFLOP/s")
        if options.program:
            compare(name, bodies, options)


if __name__ == "__main__":
    main()
