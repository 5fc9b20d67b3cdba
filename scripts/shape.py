"""Shape of the source that no compiler checks.

A function of the command line parses, opens, runs one job, reports and says how it ended: it is
short. And the library names no option of the command line in what it says: a program that uses it
has none. `src/cli` says which option helps.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Lines of a function of the command line, its signature included.
LIMIT = 60

LITERAL = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
      | b?r(?P<hashes>[#]*)"(?P<raw>.*?)"(?P=hashes)
      | b?"(?P<text>(?:\\.|[^"\\])*)"
      | b?'(?:\\[^']+|[^'\\])'""",
    re.S | re.X,
)
FUNCTION = re.compile(r"^[ \t]*(?:pub(?:\([^)]*\))? )?(?:(?:const|async) )*fn (\w+)", re.M)
TESTS = re.compile(r"^#\[cfg\(test\)\]\nmod \w+ \{", re.M)
ARGUMENT = re.compile(r"#\[arg\((?P<how>[^\]]*\blong\b[^\]]*(?:\[[^\]]*\][^\]]*)*)\)\]\s*(?:pub )?(?P<field>\w+):", re.S)
# The options that may still be named.
NAMED = {"src/report/residue.rs --list"}
# Who is told of kubectl's options is not told of ours.
FOREIGN = re.compile(r"\bkubectl\b")


def without_tests(text):
    found = TESTS.search(text)
    return text[: found.start()] if found else text


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def functions(text):
    """Name, first line and number of lines of each function."""
    code = LITERAL.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text)
    for found in FUNCTION.finditer(code):
        end, depth = found.end(), 0
        while end < len(code) and (depth or code[end] != ";"):
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            end += 1
            if code[end - 1] == "}" and not depth:
                break
        yield found.group(1), line_of(code, found.start()), code.count("\n", found.start(), end) + 1


def options(texts):
    """The options of the command line, as clap is told of them."""
    names = set()
    for text in texts:
        for found in ARGUMENT.finditer(text):
            named = re.search(r'\blong\s*=\s*"([^"]+)"', found["how"])
            names.add(named[1] if named else found["field"].replace("_", "-"))
    return names


def main():
    files = {
        path.relative_to(ROOT): without_tests(path.read_text())
        for path in sorted((ROOT / "src").rglob("*.rs"))
        if not path.stem.startswith("tests")
    }
    ours = {path: text for path, text in files.items() if path.parts[1] == "cli"}
    names = options(ours.values())
    option = re.compile(r"(?<![\w-])--(" + "|".join(map(re.escape, sorted(names))) + r")(?![\w-])")
    long, named = [], []
    for path, text in files.items():
        if path in ours:
            found = functions(text)
            long += [
                f"{path}:{at}: {name} has {n} lines"
                for name, at, n in found
                if n > LIMIT
            ]
            continue
        for literal in LITERAL.finditer(text):
            said = literal["raw"] or literal["text"] or ""
            for hit in option.finditer(said) if not FOREIGN.search(said) else ():
                if f"{path} {hit[0]}" not in NAMED:
                    named.append(f"{path}:{line_of(text, literal.start())}: {hit[0]}")
    for what, hits in [
        (f"functions of the command line with more than {LIMIT} lines", long),
        ("options of the command line in what the library says", named),
    ]:
        if hits:
            print(f"error: {what}", *hits, sep="\n  ", file=sys.stderr)
    return bool(long or named)


if __name__ == "__main__":
    sys.exit(main())
