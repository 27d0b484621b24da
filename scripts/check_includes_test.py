#!/usr/bin/env python3
"""Shows that check_includes.py finds what it is there to find: each case plants one violation in a small tree."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

CHECKER = Path(__file__).parent / "check_includes.py"
RULE = "```include-rule\npublic:\ncore: public\nio: core public\ntext: core public\ntools: io text core public\n```\n"


def run(files: dict[str, str]) -> subprocess.CompletedProcess:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, text in {"docs/architecture.md": RULE, "src/core/a.h": "#pragma once\n", **files}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        return subprocess.run([sys.executable, CHECKER, root], capture_output=True, text=True, check=False)


class CheckIncludes(unittest.TestCase):
    def assert_found(self, files: dict[str, str], text: str) -> None:
        result = run(files)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn(text, result.stdout)

    def test_a_clean_tree_passes(self):
        result = run({"src/io/b.cpp": '#include <nlohmann/json.hpp>\n#include "core/a.h"\n'})
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_an_arrow_that_points_up(self):
        self.assert_found({"src/core/b.h": '#include "io/c.h"\n'}, "src/core/b.h:1: core must not include io")

    def test_neighbours(self):
        self.assert_found({"src/text/b.cpp": '#include "io/c.h"\n'}, "text must not include io")

    def test_public_headers(self):
        self.assert_found({"include/chipmunk/b.h": '#include "core/a.h"\n'}, "public must not include core")
        self.assert_found({"include/chipmunk/b.h": "#include <fmt/core.h>\n"}, "standard library only")

    def test_heavy_headers(self):
        self.assert_found({"src/io/b.h": "#include <nlohmann/json.hpp>\n"}, "too heavy")
        self.assert_found({"src/core/b.cpp": "#include <nlohmann/json.hpp>\n"}, "core must not include nlohmann")
        self.assert_found({"src/core/b.cu": "#include <fmt/core.h>\n"}, "fmt does not compile")

    def test_form(self):
        self.assert_found({"src/core/b.h": "\tint a;\n"}, "a tab")
        self.assert_found({"src/core/b.h": "// TO" + "DO later\n"}, "must say when")
        self.assert_found({"src/core/b.h": "int a;\n" * 601}, "more than 600 lines")


if __name__ == "__main__":
    unittest.main()
