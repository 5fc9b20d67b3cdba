#!/usr/bin/env python3
"""Prints the licences of every crate that the program is built from, as their authors wrote them.

Reads `cargo metadata`; the texts are the files in the crates' own sources."""

import json
import pathlib
import subprocess
import sys

NAMES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE")


def main():
    metadata = json.loads(subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"],
        check=True, stdout=subprocess.PIPE).stdout)
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    seen, todo = set(), [root]
    while todo:
        for dep in nodes[todo.pop()]["deps"]:
            # What only tests and build scripts use is not in the program.
            if dep["pkg"] not in seen and any(kind["kind"] is None for kind in dep["dep_kinds"]):
                seen.add(dep["pkg"])
                todo.append(dep["pkg"])
    packages = sorted((p for p in metadata["packages"] if p["id"] in seen), key=lambda p: (p["name"], p["version"]))
    texts = {}
    without = []
    for package in packages:
        folder = pathlib.Path(package["manifest_path"]).parent
        files = sorted(f for f in folder.iterdir() if f.is_file() and f.name.upper().startswith(NAMES))
        label = f"{package['name']} {package['version']} ({package['license']})"
        if not files:
            without.append(label)
        for file in files:
            texts.setdefault(file.read_text(errors="replace").strip(), []).append(label)
    print(f"atrest is built from {len(packages)} crates. Each licence text stands once, under the crates that carry it.\n")
    for text, labels in sorted(texts.items(), key=lambda item: item[1]):
        print("=" * 80)
        print("\n".join(sorted(set(labels))))
        print("=" * 80 + "\n")
        print(text + "\n")
    if without:
        print("=" * 80 + "\nNo licence file in the crate; its manifest names the licence:\n" + "\n".join(without))


if __name__ == "__main__":
    sys.exit(main())
