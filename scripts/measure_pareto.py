#!/usr/bin/env python3
"""Loss over work and over time of the sparse method on the demo model, at many settings, on one machine's GPUs.

measure_pareto.py OUT              runs everything, merges it and prints the tables of docs/method.md
measure_pareto.py OUT --table      merges and prints what an earlier run left in OUT, also one that was stopped

Families of settings (what is sparse, how caches are joined, which steps are full or skipped) at several kept shares of
columns and features; the suite's prompts, dense and with every setting. Each part is a pool of `chipmunk compare` on
slices of the prompts:
  times     a process a GPU, alone there: denoising times
  cputimes  with --cpu-timed, the same on the CPU, one process alone
  work      a few prompts with everything recorded: shares of multiply-adds
  grid      all prompts, several processes a GPU: PSNR, SSIM, scores
OUT gets PART-STEPS.json each, for scripts/plot_comparison.py, and settings/ and items/ with what they are made of.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from merge_comparisons import merge  # noqa: E402

SHARES = ("0.05", "0.1", "0.2", "0.3", "0.5")
PRESETS = ("demo", "demo-caching", "flux", "flux-caching")
# The preset demo's, and with fewer and more full steps.
FULL_STEPS = "[0, 1, 2, 3, 4, 5, 6, 15]"
FEW_FULL_STEPS = "[0, 1, 2, 3, 15]"
MANY_FULL_STEPS = {28: "[0, 1, 2, 3, 4, 5, 6, 7, 8, 14, 20]", 50: "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 27]"}
ADAPTIVE = "{mode: adaptive, threshold: 0.1}"
LISTS = {28: "{skip_step_schedule: [9, 11, 13, 17, 19, 21, 23, 25]}", 50: "{is_enabled: true}"}  # 50: the original's


def settings_yaml(share: str, steps: int, attention: bool, mlp: bool, combine: str, full: str, caching: str) -> str:
    yaml = (
        "patchify: {is_enabled: true}\n"
        f"attn: {{is_enabled: {str(attention).lower()}, should_compress_indices: false, random_keys: 0.0, top_keys: "
        f"{share}, recompute_mask: true, full_step_schedule: {full}, first_n_dense_layers: 0, combine: {combine}}}\n"
        f"mlp: {{is_enabled: {str(mlp).lower()}, top_keys: {share}, random_keys: 0.0, full_step_schedule: {full}, "
        "first_n_dense_layers: 0}\n"
    )
    return yaml + (f"step_caching: {caching}\n" if caching else "")


def families(steps: int) -> dict[str, tuple]:
    """Attention, MLP, combine, full steps, step caching."""
    made: dict[str, tuple] = {"mlp": (False, True, "merge", FULL_STEPS, "")}
    for combine in ("difference", "merge"):
        made[f"attention-{combine}"] = (True, False, combine, FULL_STEPS, "")
        made[f"both-{combine}"] = (True, True, combine, FULL_STEPS, "")
        made[f"list-{combine}"] = (True, True, combine, FULL_STEPS, LISTS[steps])
        made[f"adaptive-{combine}"] = (True, True, combine, FULL_STEPS, ADAPTIVE)
    made["few-full"] = (True, True, "merge", FEW_FULL_STEPS, "")
    made["many-full"] = (True, True, "merge", MANY_FULL_STEPS[steps], "")
    made["many-adaptive"] = (True, True, "merge", MANY_FULL_STEPS[steps], ADAPTIVE)
    return made


def write_settings(out: Path, steps: int, pattern: str) -> list[str]:
    """Names and files of all variants, as --sparsity takes them."""
    folder = out / "settings" / str(steps)
    folder.mkdir(parents=True, exist_ok=True)
    sources = [name for name in PRESETS if re.search(pattern, name)]
    for family, (attention, mlp, combine, full, caching) in families(steps).items():
        for share in SHARES:
            name = f"{family}-{share}"
            if not re.search(pattern, name):
                continue
            file = folder / f"{name}.yml"
            file.write_text(settings_yaml(share, steps, attention, mlp, combine, full, caching))
            sources.append(str(file))
    return sources


@dataclass
class Item:
    """Prompts first .. first + count - 1, dense and with every setting."""

    part: str
    steps: int
    first: int
    count: int

    def folder(self, out: Path) -> Path:
        return out / "items" / f"{self.part}-{self.steps}-{self.first:03}"


def slices(part: str, steps: int, prompts: int, count: int) -> list[Item]:
    return [Item(part, steps, first, min(count, prompts - first)) for first in range(0, prompts, count)]


class Pool:
    """Runs items, several at a time, until the deadline. Worker i has the GPU i, modulo their number, or the CPU."""

    def __init__(self, options: argparse.Namespace, start: float, on_cpu: bool, threads: int):
        self.options, self.start, self.on_cpu, self.threads = options, start, on_cpu, threads
        self.sources = {steps: write_settings(options.out, steps, options.settings) for steps in options.steps}
        self.good = True

    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def launch(self, item: Item, worker: int) -> subprocess.Popen:
        folder = item.folder(self.options.out)
        folder.mkdir(parents=True, exist_ok=True)
        command = [self.options.program, "compare", "--suite", "scenes", "--skip", str(item.first), "--limit"]
        command += [str(item.count), "--steps", str(item.steps), "--no-pictures", "--quiet", "-o", str(folder)]
        command += ["--threads", str(self.threads), "--device", "cpu" if self.on_cpu else "cuda"]
        if self.options.model:
            command += ["-m", self.options.model]
        if item.part != "work":
            command.append("--no-record")
        for source in self.sources[item.steps]:
            command += ["--sparsity", source]
        environment = dict(os.environ, OMP_NUM_THREADS=str(self.threads))
        if not self.on_cpu:
            environment |= {"CUDA_VISIBLE_DEVICES": str(worker % self.options.gpus), "OMP_WAIT_POLICY": "passive"}
        with open(folder / "log.txt", "w") as log:
            return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)

    def run(self, title: str, items: list[Item], workers: int) -> None:
        """self.good becomes false if something failed or the deadline came."""
        if not items:
            return
        waiting, running, begin, last = list(items), {}, self.elapsed(), self.elapsed()
        done = failed = pictures = 0
        while waiting or running:
            if self.elapsed() > self.options.deadline:
                for process, _ in running.values():
                    process.terminate()
                for process, _ in running.values():
                    process.wait()
                self.good = False
                break
            for worker in range(workers):
                if worker in running and running[worker][0].poll() is not None:
                    process, item = running.pop(worker)
                    done += 1
                    if process.returncode != 0:
                        failed += 1
                        print(f"{item}: exit code {process.returncode}: {log_of(item, self.options.out)}", flush=True)
                    else:
                        pictures += item.count * (len(self.sources[item.steps]) + 1)
                if worker not in running and waiting and failed < 10:
                    item = waiting.pop(0)
                    running[worker] = (self.launch(item, worker), item)
            if failed >= 10 and not running:
                break
            if self.elapsed() - last > 10:
                last = self.elapsed()
                print(f"{last:.0f} s: {title}: {done} of {len(items)} items, {pictures} pictures", flush=True)
            time.sleep(0.02)
        seconds = self.elapsed() - begin
        print(f"{self.elapsed():.0f} s: {title}: {done} of {len(items)} items, {failed} failed, {pictures} pictures in "
              f"{seconds:.1f} s, {pictures / seconds:.2f} a second with {workers} processes", flush=True)
        self.good = self.good and failed == 0


def log_of(item: Item, out: Path) -> str:
    return (item.folder(out) / "log.txt").read_text().strip()[-300:]


def merge_items(out: Path) -> dict[str, dict]:
    """PART-STEPS to what was measured, of all items that are complete."""
    found: dict[str, list[dict]] = {}
    for file in sorted(out.glob("items/*/compare.json")):
        try:
            part = json.loads(file.read_text())
        except ValueError:
            continue  # cut off by the deadline
        found.setdefault(file.parent.name.rpartition("-")[0], []).append(part)
    merged = {name: merge(parts) for name, parts in found.items()}
    for name, data in merged.items():
        (out / f"{name}.json").write_text(json.dumps(data) + "\n")
    return merged


def median_speedup(variant: dict) -> float:
    return statistics.median(picture["dense_denoise_ms"] / picture["denoise_ms"] for picture in variant["pictures"])


def table(grid: dict, work: dict | None, times: list[dict]) -> str:
    """Markdown, a row a setting; times: of one device each."""
    works = {v["name"]: f"{100 * v['share_of_dense_work']:.1f} %" for v in work["variants"]} if work else {}
    speedups = [{v["name"]: f"{median_speedup(v):.2f}x" for v in data["variants"]} for data in times]

    def score(run: dict) -> str:
        scenes = run["scenes"]
        low, high = (100 * bound for bound in scenes["intervals"]["all_correct"])
        parts = " | ".join("-" if scenes[n] is None else f"{100 * scenes[n]:.1f} %" for n in ("shape", "relation"))
        return f"{100 * scenes['all_correct']:.1f} % [{low:.1f}, {high:.1f}] | {parts}"

    lines = [f"{len(grid['prompts'])} prompts, {grid['num_steps']} steps, {grid['device']}"]
    for data in times:
        ms = sorted(picture["denoise_ms"] for picture in data["dense"]["pictures"])
        lines[0] += f"; dense denoising on {data['device']}, {data['threads']} threads, median of {len(ms)}: "
        lines[0] += f"{statistics.median(ms):.1f} ms [{ms[0]:.1f} .. {ms[-1]:.1f}]"
    header = "| settings | work | PSNR, dB | lowest | SSIM | all correct | shape | relation |"
    lines += ["", header + "".join(f" {data['device']} |" for data in times), "|---" * (8 + len(times)) + "|",
              f"| dense | 100 % | | | | {score(grid['dense'])} |" + " 1x |" * len(times)]
    for v in grid["variants"]:
        psnr, name = v["psnr"], v["name"]
        deviation = f" ± {psnr['std']:.1f}" if psnr["std"] is not None else ""
        lines.append(f"| {name} | {works.get(name, '')} | {psnr['mean']:.1f}{deviation} | {psnr['min']:.1f} | "
                     f"{v['ssim']['mean']:.3f} | {score(v)} |" + "".join(f" {s.get(name, '')} |" for s in speedups))
    return "\n".join(lines) + "\n"


def overview(grid: dict, work: dict | None) -> str:
    """Markdown, a row a family and a column a share: work and PSNR."""
    works = {v["name"]: f"{100 * v['share_of_dense_work']:.1f} %: " for v in work["variants"]} if work else {}
    cells = {v["name"]: f"{works.get(v['name'], '')}{v['psnr']['mean']:.1f}" for v in grid["variants"]}
    lines = ["| kept | " + " | ".join(f"{100 * float(share):.0f} %" for share in SHARES) + " |", "|---" * 6 + "|"]
    for family in families(grid["num_steps"]):
        row = [cells.get(f"{family}-{share}", "") for share in SHARES]
        if any(row):
            lines.append(f"| {family} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--program", default="build-release/bin/chipmunk")
    parser.add_argument("--model", help="default: the program's")
    parser.add_argument("--gpus", type=int, default=1, help="0: on the CPU")
    parser.add_argument("--processes", type=int, default=8, help="of a GPU")
    parser.add_argument("--threads", type=int, default=1, help="of a process")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--slice", type=int, default=1, help="prompts of a process")
    parser.add_argument("--timed", type=int, default=6, help="prompts whose times are measured, 0 for none")
    parser.add_argument("--cpu-timed", type=int, default=0, help="prompts whose times on the CPU are measured")
    parser.add_argument("--cpu-threads", type=int, default=8)
    parser.add_argument("--recorded", type=int, default=8, help="prompts whose work is measured, 0 for none")
    parser.add_argument("--steps", type=int, nargs="+", default=[28, 50], choices=[28, 50])
    parser.add_argument("--settings", default="", help="only settings whose name this regular expression finds")
    parser.add_argument("--deadline", type=float, default=float("inf"), help="seconds after which nothing goes on")
    parser.add_argument("--table", action="store_true", help="run nothing")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> bool:
    start = time.monotonic()
    gpus = max(1, options.gpus)
    timed, cpu_timed, recorded, grid = [], [], [], []
    for steps in options.steps:
        if options.timed > 0:
            timed += slices("times", steps, options.timed, -(-options.timed * len(options.steps) // gpus))
        cpu_timed += slices("cputimes", steps, options.cpu_timed, 1)
        recorded += slices("work", steps, options.recorded, options.slice)
        grid += slices("grid", steps, options.prompts, options.slice)
    # A run that the deadline cuts has both: more prompts at fewer steps.
    grid.sort(key=lambda item: item.first * item.steps)
    pool = Pool(options, start, options.gpus == 0, options.threads)
    pool.run("times", timed, gpus)
    cpu_pool = Pool(options, start, True, options.cpu_threads)
    cpu_pool.run("cputimes", cpu_timed, 1)
    pool.run("work and grid", recorded + grid, gpus * options.processes)
    return pool.good and cpu_pool.good


def main() -> None:
    options = parse_options()
    good = True if options.table else measure(options)
    merged = merge_items(options.out)
    for name, data in merged.items():
        part, _, steps = name.partition("-")
        if part == "grid":
            times = [merged[key] for key in (f"times-{steps}", f"cputimes-{steps}") if key in merged]
            print(table(data, merged.get(f"work-{steps}"), times))
            print(overview(data, merged.get(f"work-{steps}")))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
