#!/usr/bin/env python3
"""Draws the plots of docs/ from what `chipmunk compare` measured (needs matplotlib).

plot_comparison.py attention COMPARE_JSON OUT.png [VARIANT]   mass in the heaviest columns, change from step to step
plot_comparison.py error COMPARE_JSON OUT.png [VARIANT...]    latents' error over the steps, a line a variant
plot_comparison.py pareto FOLDER STEPS OUT.png                loss over work and over time, of measure_pareto.py
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import matplotlib

sys.path.insert(0, str(Path(__file__).parent))
from measure_pareto import median_speedup  # noqa: E402

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
        steps = zip(*(picture["latent_error"] for picture in variant["pictures"]))
        axes.plot([statistics.fmean(errors) for errors in steps], label=variant["name"])
    axes.set(xlabel="step", ylabel="relative error of the latents", yscale="log")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out, dpi=80)


COLOURS = {
    "attention": "tab:blue", "mlp": "tab:green", "both": "tab:red", "list": "tab:purple", "adaptive": "tab:orange",
    "few-full": "tab:brown", "many-full": "tab:pink", "many-adaptive": "tab:cyan",
}


def front(points: list[tuple[float, float]], falling: bool) -> list[tuple[float, float]]:
    """The points that no other one beats in both: y is better when larger, x when smaller, or larger with falling."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (-point[0] if falling else point[0], -point[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best


def draw_families(panel: plt.Axes, variants: list[dict], x, y) -> None:
    """A line a family, dashed where caches are joined by difference; presets as stars with their names."""
    families: dict[str, list[dict]] = {}
    for variant in variants:
        family, _, share = variant["name"].rpartition("-")
        if share.replace(".", "").isdigit():
            families.setdefault(family, []).append(variant)
            continue
        panel.plot(x(variant), y(variant), "k*", markersize=9, zorder=4)
        place = (x(variant), y(variant))
        panel.annotate(variant["name"], place, textcoords="offset points", xytext=(5, -9), fontsize=7)
    for family, members in sorted(families.items(), reverse=True):
        base = family.removesuffix("-merge").removesuffix("-difference")
        dashed = family.endswith("-difference")
        points = sorted((float(v["name"].rpartition("-")[2]), x(v), y(v)) for v in members)
        panel.plot([p[1] for p in points], [p[2] for p in points], marker="o", markersize=3.5, linewidth=1.1, zorder=3,
                   color=COLOURS.get(base, "black"), linestyle="--" if dashed else "-",
                   markerfacecolor="white" if dashed else None, label=family)


def plot_pareto(grid: dict, work: dict, times: list[dict], out: str) -> None:
    """PSNR and correct pictures over the share of multiply-adds, of a recorded run, and over each device's speed-up."""
    shares = {variant["name"]: 100 * variant["share_of_dense_work"] for variant in work["variants"]}
    columns = 1 + len(times)
    figure, panels = plt.subplots(2, columns, figsize=(5.5 * columns, 8.4), sharey="row", sharex="col", squeeze=False)
    values = [
        ("PSNR to dense, dB", lambda v: v["psnr"]["mean"]),
        ("pictures all correct, %", lambda v: 100 * v["scenes"]["all_correct"]),
    ]
    axes = [
        ("multiply-adds of attention and MLPs, % of dense", lambda v: shares[v["name"]], False),
    ]
    for data in times:
        speedups = {variant["name"]: median_speedup(variant) for variant in data["variants"]}
        label = "GPU" if data["device"].startswith("cuda") else "CPU"
        axes.append((f"denoising on the {label}, times as fast as dense", lambda v, s=speedups: s[v["name"]], True))
    for row, (y_label, y) in zip(panels, values):
        for panel, (x_label, x, falling) in zip(row, axes):
            best = front([(x(v), y(v)) for v in grid["variants"]], falling)
            panel.plot(*zip(*best), color="gold", linewidth=7, alpha=0.55, zorder=1, solid_capstyle="round",
                       label="Pareto front")
            draw_families(panel, grid["variants"], x, y)
            panel.grid(linewidth=0.3)
            if not falling:
                panel.set_ylabel(y_label)
            if y_label == values[-1][0]:
                panel.set_xlabel(x_label)
    scenes = grid["dense"]["scenes"]
    for panel in panels[1]:
        panel.axhline(100 * scenes["all_correct"], color="grey", linewidth=0.9, linestyle=":", label="dense")
        panel.axhspan(*(100 * bound for bound in scenes["intervals"]["all_correct"]), color="grey", alpha=0.1, zorder=0,
                      label="dense, 95 %")
    title = f"{len(grid['prompts'])} prompts, {grid['num_steps']} steps; points of a line keep 5, 10, 20, 30, 50 %"
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    handles, labels = panels[1][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7.5, ncol=7, loc="lower center")
    figure.savefig(out, dpi=80)


def main() -> None:
    if len(sys.argv) < 4 or sys.argv[1] not in ("attention", "error", "pareto"):
        sys.exit(__doc__)
    if sys.argv[1] == "pareto":
        if len(sys.argv) != 5:
            sys.exit(__doc__)
        folder, steps = Path(sys.argv[2]), sys.argv[3]
        grid, work = (json.loads((folder / f"{part}-{steps}.json").read_text()) for part in ("grid", "work"))
        files = [folder / f"{part}-{steps}.json" for part in ("times", "cputimes")]
        times = [json.loads(file.read_text()) for file in files if file.exists()]
        plot_pareto(grid, work, times, sys.argv[4])
        return
    data = json.loads(Path(sys.argv[2]).read_text())
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
