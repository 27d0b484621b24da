"""Draws the loss curves of training legs: python plot.py OUT.png vae_log.json flux_log.json..."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    logs = {name: json.loads(Path(name).read_text()) for name in sys.argv[2:]}
    both = any("psnr_db" in log for log in logs.values())
    figure, axes = plt.subplots(1, 1 + both, figsize=(4.5 + 4.5 * both, 3.2), squeeze=False)
    left, right = axes[0][0], axes[0][-1]
    done = 0
    for name, log in logs.items():
        steps, loss = [row[0] for row in log["rows"]], [row[2] for row in log["rows"]]
        if "psnr_db" in log:
            left.plot(steps, loss)
        else:
            right.plot([done + s for s in steps[1:]], loss[1:], label=Path(name).stem)
            done += log["steps"]
    if both:
        left.set(title="autoencoder: mean absolute error", xlabel="step", yscale="log")
    right.set(title="transformer: velocity error", xlabel="step", yscale="log")
    right.legend()
    figure.tight_layout()
    figure.savefig(sys.argv[1], dpi=80)


if __name__ == "__main__":
    main()
