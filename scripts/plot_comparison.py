#!/usr/bin/env python3
"""Draws the plots of docs/ from what `chipmunk compare` measured (needs matplotlib).

plot_comparison.py attention COMPARE_JSON OUT.png [VARIANT]   mass in the heaviest columns, change from step to step
plot_comparison.py error COMPARE_JSON OUT.png [VARIANT...]    latents' error over the steps, a line a variant
plot_comparison.py pareto COMPARE_JSON OUT.png WORK_JSON      loss over work and over time; variants are FAMILY-SHARE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def plot_attention(data: dict, variant: dict, out: str) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    fractions = [100 * f for f in data["mass_fractions"]]
    for layer in variant["layers"]:
        name = f"layer {layer['index']}"
        left.plot(fractions, [100 * m for m in layer["attention_mass"]], marker=".", label=name)
        steps = [i for i, change in enumerate(layer["attention_change"]) if change is not None and change >= 0]
        right.plot(steps, [layer["attention_change"][i] for i in steps], label=name)
    left.set(xlabel="heaviest columns of a 192-query group, %", ylabel="attention mass, %", xscale="log", ylim=(0, 100))
    left.set_xticks(fractions, [f"{f:g}" for f in fractions])
    right.set(xlabel="step", ylabel="relative change of the attention's output", yscale="log")
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out, dpi=80)


def plot_error(variants: list[dict], out: str) -> None:
    figure, axes = plt.subplots(figsize=(6.5, 3.6))
    for variant in variants:
        axes.plot([step["latent_error"] for step in variant["steps"]], label=variant["name"])
    axes.set(xlabel="step", ylabel="relative error of the latents", yscale="log")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out, dpi=80)


def plot_pareto(data: dict, work: dict, out: str) -> None:
    """PSNR and correct pictures over the share of multiply-adds, from a recorded run, and over the speed-up."""
    shares = {variant["name"]: 100 * variant["share_of_dense_work"] for variant in work["variants"]}
    families: dict[str, list[dict]] = {}
    for variant in data["variants"]:
        families.setdefault(variant["name"].rpartition("-")[0], []).append(variant)
    figure, panels = plt.subplots(2, 2, figsize=(10, 7), sharey="row")
    values = [
        ("PSNR to dense, dB", lambda v: v["psnr"]["mean"]),
        ("pictures all correct, %", lambda v: 100 * v["scenes"]["all_correct"]),
    ]
    axes = [
        ("multiply-adds of attention and MLPs, % of dense", lambda v: shares[v["name"]]),
        ("denoising, times faster", lambda v: v["speedup"]),
    ]
    for row, (y_label, y) in zip(panels, values):
        for panel, (x_label, x) in zip(row, axes):
            for name, variants in families.items():
                points = sorted((x(v), y(v)) for v in variants)
                panel.plot(*zip(*points), marker=".", label=name)
            panel.set(xlabel=x_label, ylabel=y_label)
    dense = 100 * data["dense"]["scenes"]["all_correct"]
    for panel in panels[1]:
        panel.axhline(dense, color="grey", linewidth=0.8, linestyle="--", label="dense")
    panels[1][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out, dpi=80)


def main() -> None:
    if len(sys.argv) < 4 or sys.argv[1] not in ("attention", "error", "pareto"):
        sys.exit(__doc__)
    data = json.loads(Path(sys.argv[2]).read_text())
    if sys.argv[1] == "pareto":
        if len(sys.argv) != 5:
            sys.exit(__doc__)
        plot_pareto(data, json.loads(Path(sys.argv[4]).read_text()), sys.argv[3])
        return
    wanted = sys.argv[4:] or [variant["name"] for variant in data["variants"]]
    chosen = [variant for variant in data["variants"] if variant["name"] in wanted]
    if not chosen:
        sys.exit(f"no such variant; there are {', '.join(v['name'] for v in data['variants'])}")
    if sys.argv[1] == "attention":
        plot_attention(data, chosen[0], sys.argv[3])
    else:
        plot_error(chosen, sys.argv[3])


if __name__ == "__main__":
    main()
