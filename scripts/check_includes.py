#!/usr/bin/env python3
"""Checks the include rule of docs/architecture.md, and a few rules that keep files readable.

usage: check_includes.py [ROOT]   exit status 0 if all rules hold; each violation is a line "file:line: text"
"""

import re
import sys
from pathlib import Path

MAX_LINES = 600
SOURCE_SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')
# Third-party headers by prefix: the folders that may include them, and whether a header may.
THIRD_PARTY = {
    "nlohmann/": ({"io", "text", "tools", "tests", "bench"}, False),
    "yaml-cpp/": ({"sparse", "tests"}, False),
    "CLI/": ({"tools"}, False),
    "dnnl": ({"cpu", "bench"}, True),
    "oneapi/dnnl": ({"cpu", "bench"}, True),
    "cublas": ({"cuda", "bench"}, True),
    "hwy/": ({"cpu", "tests"}, True),
    "omp.h": ({"cpu", "bench", "tests"}, True),
    "sentencepiece": ({"text"}, True),
    "utf8proc": ({"text"}, True),
    "pcre2": ({"text"}, True),
    "png.h": ({"io"}, True),
}


def read_rule(document: Path) -> dict[str, set[str]]:
    """The folders that each folder may include, from the fenced block `include-rule`."""
    text = document.read_text(encoding="utf-8")
    block = re.search(r"```include-rule\n(.*?)```", text, re.S)
    if block is None:
        raise SystemExit(f"{document}: no block ```include-rule")
    rule = {}
    for line in block.group(1).splitlines():
        if line.strip():
            name, allowed = line.split(":")
            rule[name.strip()] = set(allowed.split()) | {name.strip()}
    for name, allowed in rule.items():
        unknown = allowed - rule.keys()
        if unknown:
            raise SystemExit(f"{document}: {name} names unknown folders {sorted(unknown)}")
    return rule


def layer_of(path: Path) -> str:
    """The rule's name for a source file, relative to the root."""
    parts = path.parts
    if parts[0] == "include":
        return "public"
    if parts[0] == "src":
        return parts[1]
    return parts[0]


def layer_of_include(name: str, rule: dict[str, set[str]]) -> str | None:
    """The rule's name for an included project header, or None for other headers."""
    if name in rule:
        return name
    first = name.split("/")[0]
    if first == "chipmunk":
        return "public"
    return first if "/" in name and first in rule else None


def check_file(root: Path, path: Path, rule: dict[str, set[str]]) -> list[str]:
    relative = path.relative_to(root)
    layer = layer_of(relative)
    lines = path.read_text(encoding="utf-8").splitlines()
    problems = []
    if len(lines) > MAX_LINES:
        problems.append(f"{relative}:{len(lines)}: more than {MAX_LINES} lines: does it still have one purpose?")
    for number, line in enumerate(lines, 1):
        where = f"{relative}:{number}"
        if "\t" in line:
            problems.append(f"{where}: a tab")
        if re.search(r"\b(TODO|FIXME|XXX)\b", line) and "(when " not in line:
            problems.append(f"{where}: a TODO must say when: TODO(when ...)")
        include = INCLUDE.match(line)
        if include is None:
            continue
        name = include.group(2)
        target = layer_of_include(name, rule)
        if layer in rule and target is not None and target not in rule[layer]:
            problems.append(f"{where}: {layer} must not include {target} ({name})")
        if layer == "public" and target is None and ("/" in name or "." in name):
            problems.append(f"{where}: public headers include the standard library only ({name})")
        for prefix, (folders, in_headers) in THIRD_PARTY.items():
            if not name.startswith(prefix):
                continue
            if layer not in folders:
                problems.append(f"{where}: {layer} must not include {name}")
            if path.suffix in {".h", ".cuh"} and not in_headers and layer not in {"tests", "bench"}:
                problems.append(f"{where}: {name} is too heavy for a header")
        if name.startswith("fmt/") and path.suffix in {".cu", ".cuh"}:
            problems.append(f"{where}: fmt does not compile in CUDA files ({name})")
    return problems


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    rule = read_rule(root / "docs" / "architecture.md")
    problems = []
    files = 0
    for folder in ("include", "src", "tools", "tests", "bench"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in SOURCE_SUFFIXES and path.is_file():
                files += 1
                problems += check_file(root, path, rule)
    for problem in problems:
        print(problem)
    print(f"{files} files checked, {len(problems)} problems")
    return 1 if problems or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
