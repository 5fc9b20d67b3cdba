"""What calls what in src/: no circles, and the map in docs/architecture.md is what the code has.

A room is a module of the crate's root. Between rooms, and between the parts of each module, calls
go in one direction; a module and its own parts may call each other. Code of tests does not count.
`python3 scripts/rooms.py --write` writes the third column of the map anew.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
PAGE = ROOT / "docs/architecture.md"
# The room that may call everything, so that its row names nothing.
TOP = "cli"


def strip(text):
    """Source without comments, literals and modules of tests."""
    token = re.compile(
        r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\[^\']+|[^\'\\])\'', re.S
    )
    text = token.sub(" ", text)
    out, at = [], 0
    for found in re.finditer(r"#\[cfg\(test\)\]\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+\w+\s*\{", text):
        if found.start() < at:
            continue
        depth, end = 1, found.end()
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        out.append(text[at : found.start()])
        at = end
    out.append(text[at:])
    return re.sub(r"#\[cfg\(test\)\]\s*(?:pub\s+)?(?:use|mod)\b[^;]*;", " ", "".join(out))


def expand(tree):
    """The paths of a use declaration: a::{b, c::d as e} → (a::b, b), (a::c::d, e)."""
    tree = tree.strip()
    brace = tree.find("{")
    if brace < 0:
        path, _, name = tree.partition(" as ")
        path = [p.strip() for p in path.strip().split("::")]
        yield path, (name.strip() or path[-1])
        return
    head = [p.strip() for p in tree[:brace].split("::") if p.strip()]
    depth, start, inner = 0, 0, tree[brace + 1 : tree.rfind("}")]
    for i, c in enumerate(inner + ","):
        depth += {"{": 1, "}": -1}.get(c, 0)
        if c == "," and depth == 0:
            if inner[start:i].strip():
                for path, name in expand(inner[start:i]):
                    if path == ["self"]:
                        yield head, head[-1] if name == "self" else name
                    else:
                        yield head + path, name
            start = i + 1


def modules():
    """Module path → its source without tests."""
    found = {}
    for file in sorted(SRC.rglob("*.rs")):
        parts = list(file.relative_to(SRC).with_suffix("").parts)
        if parts[-1].startswith("tests") or "tests" in parts or parts == ["main"]:
            continue
        if parts[-1] in ("mod", "lib"):
            parts.pop()
        found[tuple(parts)] = strip(file.read_text())
    return found


MODULES = modules()
USES = {}
for module, text in MODULES.items():
    names = {}
    for tree in re.findall(r"\buse\s+([^;]+);", text):
        for path, name in expand(tree):
            names[name] = path
    USES[module] = names


def resolve(module, path, seen=()):
    """The module that a path leads to, through what is imported under other names."""
    at = list(module)
    if path[0] == "crate":
        at, path = [], path[1:]
    elif path[0] == "self":
        path = path[1:]
    elif path[0] == "super":
        while path and path[0] == "super":
            at, path = at[:-1], path[1:]
    elif tuple(at + path[:1]) not in MODULES and path[0] not in USES.get(module, {}):
        return None
    for i, name in enumerate(path):
        here = tuple(at)
        if tuple(at + [name]) in MODULES:
            at.append(name)
        elif name in USES.get(here, {}) and (here, name) not in seen:
            target = USES[here][name]
            if target[0] in ("crate", "super", "self") or tuple(at + target[:1]) in MODULES:
                return resolve(here, target + path[i + 1 :], (*seen, (here, name)))
            break
        else:
            break
    return tuple(at)


def edges():
    """Which module uses which, and one place that says so."""
    found = {}
    for module, text in MODULES.items():
        paths = [path for tree in re.findall(r"\buse\s+([^;]+);", text) for path, _ in expand(tree)]
        body = re.sub(r"\buse\s+[^;]+;", " ", text)
        paths += [m.split("::") for m in re.findall(r"\b(?:crate|super|self)(?:::\w+)+", body)]
        paths += [m.split("::") for m in re.findall(r"(?<![\w:])[a-z_0-9]+(?:::\w+)+", body)]
        for path in paths:
            target = resolve(module, path)
            if target is not None and target != module:
                found.setdefault((module, target), "::".join(path))
    return found


EDGES = edges()


def circles():
    """Parts of one module that call each other, at every level."""
    for parent in sorted({m[:-1] for m in MODULES if m}):
        depth = len(parent)
        calls = {}
        for (a, b), _ in EDGES.items():
            if a[:depth] == parent and b[:depth] == parent and len(a) > depth and len(b) > depth:
                if a[depth] != b[depth]:
                    calls.setdefault(a[depth], set()).add(b[depth])
        yield from ((parent, c) for c in components(calls))


def components(calls):
    """Groups that call each other (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(v):
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in sorted(calls.get(v, ())):
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == v:
                    break
            if len(group) > 1:
                found.append(sorted(group))

    for v in sorted(calls):
        if v not in index:
            visit(v)
    return found


def rooms():
    """What each room calls."""
    calls = {m[0]: set() for m in MODULES if m}
    for a, b in EDGES:
        if a and b and a[0] != b[0]:
            calls[a[0]].add(b[0])
    return calls


def page():
    """The same by the map."""
    table = {}
    for line in PAGE.read_text().splitlines():
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 3:
            names = [n.rstrip("/").removesuffix(".rs") for n in re.findall(r"`([^`]+)`", cells[0])]
            for name in names:
                table[name] = set(re.findall(r"`([^`]+)`", cells[2]))
    return table


def write(real):
    """Writes what rooms call into the map."""
    lines = PAGE.read_text().splitlines()
    for i, line in enumerate(lines):
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 3:
            names = [n.rstrip("/").removesuffix(".rs") for n in re.findall(r"`([^`]+)`", cells[0])]
            if TOP not in names and len(names) == 1 and names[0] in real:
                cells[2] = ", ".join(f"`{room}`" for room in sorted(real[names[0]]))
                lines[i] = f"| {cells[0]} | {cells[1]} | {cells[2]} |".replace("|  |", "| |")
    PAGE.write_text("\n".join(lines) + "\n")


def main():
    if sys.argv[1:] == ["--write"]:
        write(rooms())
    wrong = []
    for parent, group in circles():
        where = "::".join(parent) or "the crate"
        lines = [f"{where}: {' ↔ '.join(group)} call each other"]
        for (a, b), path in sorted(EDGES.items()):
            d = len(parent)
            if a[:d] == parent == b[:d] and len(a) > d and len(b) > d and a[d] != b[d]:
                if a[d] in group and b[d] in group:
                    lines.append(f"  {'/'.join(a)} uses {path}")
        wrong.append("\n".join(lines))
    real, told = rooms(), page()
    for room in sorted(real.keys() | told.keys()):
        if room not in told:
            wrong.append(f"{room} is missing in the map of {PAGE.name}")
        elif room not in real:
            wrong.append(f"{room} is in the map of {PAGE.name}, but not in src/")
        elif room != TOP and real[room] != told[room]:
            more, less = real[room] - told[room], told[room] - real[room]
            wrong.append(
                f"{room} in the map of {PAGE.name}: "
                + "; ".join(
                    f"it {what} {', '.join(sorted(names))}"
                    for what, names in (("also calls", more), ("does not call", less))
                    if names
                )
            )
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    if wrong:
        print("hint: python3 scripts/rooms.py --write writes what rooms call", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
