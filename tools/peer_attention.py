"""Times PyTorch's attention (cuDNN) and a large matmul, for comparison with `chipmunk bench kernels` on the same machine.

python peer_attention.py [--preset hunyuan mid flux wan] [--rounds 10]
"""

import argparse
import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

PRESETS = {"hunyuan": (24, 119056), "mid": (24, 32768), "flux": (24, 4352), "wan": (40, 75600)}
HEAD_DIM = 128
CLOCK_SIZE = 8192


def milliseconds(body):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    body()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--preset", nargs="+", default=["flux"], choices=list(PRESETS))
    arguments.add_argument("--rounds", type=int, default=10)
    options = arguments.parse_args()
    x, y = (torch.randn(CLOCK_SIZE, CLOCK_SIZE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for name in options.preset:
        heads, tokens = PRESETS[name]
        q, k, v = (torch.randn(1, heads, tokens, HEAD_DIM, device="cuda", dtype=torch.bfloat16) for _ in range(3))

        def attend():
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                torch.nn.functional.scaled_dot_product_attention(q, k, v)

        bodies = {"cudnn attention": attend, "clock": lambda: x @ y}
        for body in bodies.values():
            body()
        times = {kernel: [] for kernel in bodies}
        for _ in range(options.rounds):
            for kernel, body in bodies.items():
                times[kernel].append(milliseconds(body))
        flops = {"cudnn attention": 4.0 * heads * tokens**2 * HEAD_DIM, "clock": 2.0 * CLOCK_SIZE**3}
        for kernel, ms in times.items():
            median = statistics.median(ms)
            print(f"{name:8} {kernel:16} {median:9.4f} ms  [{min(ms):.4f}, {max(ms):.4f}]"
                  f"  {flops[kernel] / median * 1e-9:6.0f} TFLOP/s")


if __name__ == "__main__":
    main()
