"""Draws docs/images/attention.png, and prints its table, from what `scripts/measure_method.sh OUT attention` leaves:

python plot_attention.py OUT/attention/compare.json attention.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_text())
    shares = [100 * share for share in report["mass_fractions"]]
    layers = report["variants"][0]["layers"]
    figure, (mass, change) = plt.subplots(1, 2, figsize=(10, 3.6))
    for layer in layers:
        name = f"layer {layer['index']}"
        mass.plot(shares, [100 * part for part in layer["attention_mass"]], marker=".")
        steps = [(i, value) for i, value in enumerate(layer["attention_change"]) if value is not None]
        change.plot(*zip(*steps), label=name)
        values = [value for _, value in steps]
        held = " | ".join(f"{100 * m:.0f} %" for s, m in zip(shares, layer["attention_mass"]) if s in (5, 10, 25))
        middle = values[len(values) // 2]
        print(f"| {layer['index']} | {held} | {values[0]:.2f}, {middle:.2f}, {values[-1]:.2f} |")
    mass.set(xlabel="heaviest columns of a 192-query group, %", ylabel="attention mass, %", xscale="log", ylim=(0, 100))
    mass.set_xticks(shares, [f"{share:g}" for share in shares])
    change.set(xlabel="step", ylabel="relative change of the attention's output", yscale="log")
    change.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(sys.argv[2], dpi=80)


if __name__ == "__main__":
    main()
