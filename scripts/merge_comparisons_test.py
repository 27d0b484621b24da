#!/usr/bin/env python3
"""Shows that merging slices gives what one run over all prompts would, and that slices which do not fit are refused."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).parent / "merge_comparisons.py"


def fraction(right: int, total: int) -> float | None:
    return right / total if total else None


def scores(all_correct: list[bool], relations: tuple[int, int]) -> dict:
    counts = {"object": 4, "colour": 4, "shape": 4, "relation": relations[1], "all_correct": len(all_correct)}
    values = {"object": 1.0, "colour": 0.75, "shape": 0.5, "relation": fraction(*relations),
              "all_correct": fraction(sum(all_correct), len(all_correct))}
    return {**values, "counts": counts, "intervals": {name: [0.0, 1.0] for name in counts}}


def comparison(first: int, psnr: list[float | None], all_correct: list[bool], relations: tuple[int, int]) -> dict:
    dense = {"denoise_ms": 100.0 * len(psnr), "scenes": scores(all_correct, relations),
             "pictures": [{"denoise_ms": 100.0} for _ in psnr]}
    pictures = [{"denoise_ms": 50.0, "dense_denoise_ms": 100.0, "psnr": value, "ssim": 0.9} for value in psnr]
    variant = {"name": "demo", "source": "demo", "settings": "attn: {}", "denoise_ms": 50.0 * len(psnr),
               "pictures": pictures, "share_of_dense_work": 0.1 * len(psnr), "attention_kept": 0.5, "mlp_kept": None,
               "scenes": scores(all_correct, relations)}
    return {"version": "1", "model": "m", "device": "cpu", "threads": 1, "width": 32, "height": 32, "num_steps": 4,
            "guidance": 3.5, "seed": 0, "recorded": True, "suite": "scenes", "first_picture": first,
            "prompts": [f"prompt {first + i}" for i in range(len(psnr))], "dense": dense, "variants": [variant]}


def run(parts: list[dict]) -> tuple[subprocess.CompletedProcess, dict | None]:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for i, part in enumerate(parts):
            files.append(Path(folder) / f"{i}.json")
            files[-1].write_text(json.dumps(part))
        out = Path(folder) / "out.json"
        result = subprocess.run([sys.executable, SCRIPT, out, *files], capture_output=True, text=True, check=False)
        return result, json.loads(out.read_text()) if out.exists() else None


class MergeComparisons(unittest.TestCase):
    def test_slices_in_any_order(self):
        later = comparison(2, [40.0], [True], (0, 0))
        result, merged = run([later, comparison(0, [30.0, None], [True, False], (1, 2))])
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(merged["prompts"], ["prompt 0", "prompt 1", "prompt 2"])
        variant = merged["variants"][0]
        self.assertEqual(variant["psnr"]["mean"], 35.0)
        self.assertEqual(variant["psnr"]["min"], 30.0)
        self.assertAlmostEqual(variant["psnr"]["std"], 50**0.5)
        self.assertEqual(variant["psnr"]["equal_pictures"], 1)
        self.assertEqual(variant["speedup"], 2.0)
        self.assertAlmostEqual(variant["share_of_dense_work"], (0.2 * 2 + 0.1) / 3)
        self.assertIsNone(variant["mlp_kept"])
        self.assertEqual([picture["psnr"] for picture in variant["pictures"]], [30.0, None, 40.0])
        for run_scores in (merged["dense"]["scenes"], variant["scenes"]):
            self.assertEqual(run_scores["counts"]["all_correct"], 3)
            self.assertAlmostEqual(run_scores["all_correct"], 2 / 3)
            self.assertEqual(run_scores["relation"], 0.5)
            # Wilson's interval for 2 of 3.
            low, high = run_scores["intervals"]["all_correct"]
            self.assertAlmostEqual(low, 0.2077, places=4)
            self.assertAlmostEqual(high, 0.9385, places=4)

    def assert_refused(self, parts: list[dict], text: str) -> None:
        result, merged = run(parts)
        self.assertEqual(result.returncode, 1)
        self.assertIn(text, result.stderr)
        self.assertIsNone(merged)

    def test_slices_that_do_not_fit(self):
        first = comparison(0, [30.0], [True], (1, 1))
        self.assert_refused([first, first], "picture 0 is in two slices")
        second = comparison(1, [30.0], [True], (1, 1))
        self.assert_refused([first, {**second, "num_steps": 5}], "num_steps: expected 4, found 5")
        variant = {**second["variants"][0], "settings": "attn: {top_keys: 0.1}"}
        self.assert_refused([first, {**second, "variants": [variant]}], "different variants")


if __name__ == "__main__":
    unittest.main()
