#!/usr/bin/env python3
"""Joins what several `chipmunk compare --skip N` measured on slices of the same prompts, as if it had been one run.

merge_comparisons.py OUT.json COMPARE_JSON...

Pictures are put in the order of their numbers; PSNR, SSIM, scores and times are summed up anew. Shares of work and of
what was kept are means over the pictures. What steps and layers did is left out. Slices of other settings, sizes or
seeds, and pictures that appear twice, are errors.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from pathlib import Path

COMMON = ("model", "device", "threads", "width", "height", "num_steps", "guidance", "seed", "recorded", "suite")
SCORES = ("object", "colour", "shape", "relation", "all_correct")
SHARES = ("share_of_dense_work", "attention_kept", "mlp_kept")
Z = 1.959964  # 95 % of a normal distribution


def wilson(right: int, total: int) -> list[float]:
    """Bounds of the 95 % Wilson interval, as in src/evaluation/score.cpp."""
    if total == 0:
        return [0.0, 1.0]
    p = right / total
    spread = Z * math.sqrt(p * (1 - p) / total + Z * Z / (4 * total * total))
    centre, scale = p + Z * Z / (2 * total), 1 + Z * Z / total
    return [max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)]


def merge_scores(scores: list[dict | None]) -> dict | None:
    if any(score is None for score in scores):
        return None
    merged: dict = {"intervals": {}, "counts": {}}
    for name in SCORES:
        total = sum(score["counts"][name] for score in scores)
        right = sum(round((score[name] or 0.0) * score["counts"][name]) for score in scores)
        merged[name] = right / total if total else None
        merged["intervals"][name] = wilson(right, total)
        merged["counts"][name] = total
    if all("held_out" in score for score in scores):
        merged["held_out"] = merge_scores([score["held_out"] for score in scores])
    return merged


def spread_of(values: list[float | None], with_deviation: bool) -> dict:
    finite = [value for value in values if value is not None]
    summary = {"mean": statistics.fmean(finite) if finite else None, "min": min(finite, default=None)}
    if with_deviation:
        summary["std"] = statistics.stdev(finite) if len(finite) > 1 else None
        summary["equal_pictures"] = len(values) - len(finite)
    return summary


def weighted_mean(runs: list[dict], key: str) -> float | None:
    if any(run[key] is None for run in runs):
        return None
    pictures = sum(len(run["pictures"]) for run in runs)
    return sum(run[key] * len(run["pictures"]) for run in runs) / pictures


def merge_runs(runs: list[dict]) -> dict:
    return {
        "denoise_ms": sum(run["denoise_ms"] for run in runs),
        "scenes": merge_scores([run["scenes"] for run in runs]),
        "pictures": [picture for run in runs for picture in run["pictures"]],
    }


def merge_variants(variants: list[dict], dense_ms: float) -> dict:
    merged = {key: variants[0][key] for key in ("name", "source", "settings")}
    merged |= merge_runs(variants)
    merged["psnr"] = spread_of([picture["psnr"] for picture in merged["pictures"]], with_deviation=True)
    merged["ssim"] = spread_of([picture["ssim"] for picture in merged["pictures"]], with_deviation=False)
    for key in SHARES:
        merged[key] = weighted_mean(variants, key)
    merged["dense_denoise_ms"] = dense_ms
    merged["speedup"] = dense_ms / merged["denoise_ms"]
    return merged


def check_alike(slices: list[dict]) -> None:
    first = slices[0]
    names = [(variant["name"], variant["settings"]) for variant in first["variants"]]
    for other in slices[1:]:
        for key in COMMON:
            if other[key] != first[key]:
                raise ValueError(f"{key}: expected {first[key]}, found {other[key]}")
        if [(variant["name"], variant["settings"]) for variant in other["variants"]] != names:
            raise ValueError("slices have different variants")
    end = 0
    for part in slices:
        if part["first_picture"] < end:
            raise ValueError(f"picture {part['first_picture']} is in two slices")
        end = part["first_picture"] + len(part["prompts"])


def merge(slices: list[dict]) -> dict:
    """Of compare.json objects. Throws ValueError for slices that do not belong together."""
    if not slices:
        raise ValueError("nothing to merge")
    slices = sorted(slices, key=lambda part: part["first_picture"])
    check_alike(slices)
    merged = {key: slices[0][key] for key in ("version", *COMMON, "first_picture")}
    merged["prompts"] = [prompt for part in slices for prompt in part["prompts"]]
    merged["dense"] = merge_runs([part["dense"] for part in slices])
    merged["variants"] = [
        merge_variants([part["variants"][i] for part in slices], merged["dense"]["denoise_ms"])
        for i in range(len(slices[0]["variants"]))
    ]
    return merged


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        merged = merge([json.loads(Path(name).read_text()) for name in sys.argv[2:]])
    except ValueError as error:
        sys.exit(f"merge_comparisons: {error}")
    Path(sys.argv[1]).write_text(json.dumps(merged, indent=1) + "\n")


if __name__ == "__main__":
    main()
