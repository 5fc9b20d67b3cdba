#!/usr/bin/env python3
"""Migration under fire: `atrest migrate --apply` while writers change, delete and create the same
keys, and both atrest and etcd are killed with SIGKILL at random moments.

usage: scripts/chaos [ROUNDS] [SEED]          (50 rounds unless told)

After each round the chaos ends, one more run must finish the migration, and a last one takes every
value back to plaintext, which is compared with what the writers were told:
  - no lost update: a write that etcd acknowledged is there, unless a later one replaced it
  - no resurrected key: a key whose deletion was acknowledged is not there
  - no half-written value: every value decrypts, to exactly what was written
  - etcd itself never ends but by our hand
Killed while it is alone in its cluster, etcd before 3.4.21 and 3.5.5 can lose what it has
acknowledged (etcd-io/etcd issue 14370). Such a round, seen by its revisions going back, is void.
Environment: ATREST (default target/debug/atrest), ATREST_CHAOS_ETCD (the etcd to run; default: the
one in /usr/bin, Debian's 3.4.23 or later).
"""
import base64
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ATREST = os.environ.get("ATREST", os.path.join(ROOT, "target/debug/atrest"))
KEYS = (30, 200, 600)
WRITERS = 3
PREFIX = "/registry/secrets/chaos/"
CONFIG = """apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
"""
SECRETBOX = "  - secretbox: {keys: [{name: k, secret: %s}]}\n" % base64.b64encode(b"chaos" * 6 + b"!!").decode()
IDENTITY = "  - identity: {}\n"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def b64(data):
    return base64.b64encode(data).decode()


def secret(text):
    """A Secret as stored, in JSON, which the API server reads too."""
    return json.dumps({"apiVersion": "v1", "kind": "Secret", "stringData": {"v": text}}).encode()


class Etcd:
    def __init__(self, folder, program=None):
        self.program = program or os.environ.get("ATREST_CHAOS_ETCD", "/usr/bin/etcd")
        # The newest revision that any answer showed, and whether an earlier one came after it.
        self.seen, self.lost = 0, False
        self.client, self.peer = free_port(), free_port()
        self.data = os.path.join(folder, "etcd")
        self.log = open(os.path.join(folder, "etcd.log"), "ab")
        self.process = None
        self.start()

    def launch(self, port):
        """A process that answers at the port, and its revision."""
        client, peer = (f"http://127.0.0.1:{p}" for p in (port, self.peer))
        process = subprocess.Popen(
            [self.program, "--name=default", f"--data-dir={self.data}", "--logger=zap", "--log-level=error",
             f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
             f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
             f"--initial-cluster=default={peer}"],
            stdout=self.log, stderr=self.log)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                answer = self.call("/v3/kv/range", {"key": b64(b"x")}, port)
                return process, int(answer["header"]["revision"])
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.05)
        process.kill()
        raise SystemExit("etcd does not start")

    def start(self):
        if self.seen:
            # Where nobody else reaches it, before anything new is written.
            seen = self.seen
            process, revision = self.launch(free_port())
            self.lost |= revision < seen
            process.terminate()
            process.wait()
        self.process, _ = self.launch(self.client)

    def kill(self):
        status = self.process.poll()
        self.process.kill()
        self.process.wait()
        if status is not None:
            raise AssertionError(f"etcd ended by itself, status {status}")

    def call(self, path, body, port=None):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.client, timeout=20)
        try:
            connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            text = response.read()
            if response.status != 200:
                raise OSError(text.decode(errors="replace"))
            answer = json.loads(text)
            self.seen = max(self.seen, int(answer["header"].get("revision", 0)))
            return answer
        finally:
            connection.close()

    def compact(self):
        """Takes history away, as the API server does every few minutes."""
        revision = self.call("/v3/kv/range", {"key": b64(b"x")})["header"]["revision"]
        try:
            self.call("/v3/kv/compaction", {"revision": revision})
        except OSError:
            pass  # compacted already

    def all(self):
        end = PREFIX[:-1] + "0"
        answer = self.call("/v3/kv/range", {"key": b64(PREFIX.encode()), "range_end": b64(end.encode())})
        return {base64.b64decode(kv["key"]).decode(): base64.b64decode(kv["value"])
                for kv in answer.get("kvs", [])}


class Writer(threading.Thread):
    """Owns some keys. Knows for each what may be stored: one value (None: no key) once a write is
    acknowledged, several after writes whose answer was lost."""

    def __init__(self, etcd, keys, model, seed, stop):
        super().__init__(daemon=True)
        self.etcd, self.keys, self.model, self.stop_flag = etcd, keys, model, stop
        self.random = random.Random(seed)
        self.acknowledged = self.unknown = self.refused = 0
        self.journal = {key: [] for key in keys}

    def run(self):
        n = 0
        while not self.stop_flag.is_set():
            n += 1
            key = self.random.choice(self.keys)
            padding = "x" * self.random.choice([0, 10, 1000, 30000])
            value = secret(f"{key} {n} {self.random.random()} {padding}")
            if self.random.random() < 0.2:
                value = None
            self.journal[key].append([n, "put" if value else "delete", "unknown", time.monotonic()])
            try:
                done = self.write(key, value)
            except (OSError, http.client.HTTPException, ValueError):
                self.model[key] = self.model[key] | {value}
                self.unknown += 1
                time.sleep(0.05)
                continue
            self.journal[key][-1][2] = done and f"done before revision {self.etcd.seen}"
            if done:
                self.model[key] = {value}
                self.acknowledged += 1
            else:
                self.refused += 1
            time.sleep(self.random.random() * 0.01)

    def write(self, key, value):
        raw = b64(key.encode())
        if value is None:
            op = {"request_delete_range": {"key": raw}}
        else:
            op = {"request_put": {"key": raw, "value": b64(value)}}
        if self.random.random() < 0.5:  # as etcdctl does
            return self.etcd.call("/v3/kv/txn", {"success": [op]})["succeeded"]
        # As the API server does: only if it is what was read.
        kvs = self.etcd.call("/v3/kv/range", {"key": raw, "keys_only": True}).get("kvs", [])
        revision = kvs[0]["mod_revision"] if kvs else "0"
        compare = {"target": "MOD", "result": "EQUAL", "key": raw, "mod_revision": revision}
        answer = self.etcd.call("/v3/kv/txn", {"compare": [compare], "success": [op]})
        return answer.get("succeeded", False)


def migrate(etcd, configs, *more):
    words = [ATREST, "migrate", "--apply", "--no-backup", "-w", "json",
             "--endpoints", f"127.0.0.1:{etcd.client}", *more]
    for config in configs:
        words += ["--encryption-config", config]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process, what):
    out, err = process.communicate(timeout=300)
    if process.returncode != 0:
        raise AssertionError(f"{what}: status {process.returncode}\n{err.decode()}{out.decode()[:2000]}")
    return json.loads(out)


def sentence(numbers):
    return ", ".join(f"{what} {n}" for what, n in numbers.items())


def one_round(number, rng):
    folder = tempfile.mkdtemp(prefix="atrest-chaos-")
    etcd = Etcd(folder)
    try:
        def config(name, text):
            path = os.path.join(folder, name)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
                f.write(CONFIG + text)
            return path

        new = config("new.yaml", SECRETBOX + IDENTITY)
        old = config("old.yaml", IDENTITY + SECRETBOX)
        keys = [f"{PREFIX}s{i:04}" for i in range(rng.choice(KEYS))]
        model = {}
        for at in range(0, len(keys), 100):
            ops = []
            for key in keys[at:at + 100]:
                value = secret(f"{key} 0")
                model[key] = {value}
                ops.append({"request_put": {"key": b64(key.encode()), "value": b64(value)}})
            etcd.call("/v3/kv/txn", {"success": ops})
        stop = threading.Event()
        writers = [Writer(etcd, keys[w::WRITERS], model, rng.random(), stop) for w in range(WRITERS)]
        for w in writers:
            w.start()
        tool_kills = etcd_kills = compactions = finished = conflicts = 0
        killed_at = []
        end = time.monotonic() + 4
        process = None
        while time.monotonic() < end:
            if process is None:
                more = rng.choice([[], [], ["--no-apiserver", "--batch", "8"], ["--no-apiserver", "--batch", "128"]])
                more = [*more, "--concurrency", str(rng.choice([1, 4, 16, 128]))]
                qps = rng.choice([100, 400, 2000, None])
                process = migrate(etcd, [new], *more, *(["--qps", str(qps)] if qps else []))
            time.sleep(rng.random() * 0.6)
            if rng.random() < 0.35:
                etcd.kill()
                etcd_kills += 1
                killed_at.append(time.monotonic())
                time.sleep(rng.random() * 0.3)
                etcd.start()
            elif rng.random() < 0.2:
                etcd.compact()
                compactions += 1
            elif rng.random() < 0.5:
                process.kill()
                process.communicate()
                tool_kills += 1
                process = None
            if process is not None and process.poll() is not None:
                out, err = process.communicate()
                told = f"status {process.returncode}: {err.decode()}"
                if process.returncode not in (0, 1, 4) or "read back" in told and not etcd.lost:
                    raise AssertionError(told)
                finished += 1
                conflicts += json.loads(out)["conflicts"] if out else 0
                process = None
        stop.set()
        for w in writers:
            w.join()
        if process is not None:
            out, _ = process.communicate(timeout=120)
            conflicts += json.loads(out)["conflicts"] if out else 0
        report = finish(migrate(etcd, [new]), "the run after the chaos")
        assert report["remaining"] == 0 and not report["failed"], report
        stored = etcd.all()
        bad = [k for k, v in stored.items() if not v.startswith(b"k8s:enc:secretbox:v1:k:")]
        assert not bad, f"not encrypted: {bad[:5]}"
        report = finish(migrate(etcd, [old]), "the way back")
        assert report["verified"] == len(stored), report
        now = etcd.all()
        wrong = [k for k in keys if now.get(k) not in model[k]]
        if wrong and etcd.lost:
            print(f"round {number}: void, etcd lost what it had acknowledged", flush=True)
            return None
        for key in wrong:
            journal = next(w.journal[key] for w in writers if key in w.journal)
            print(f"{key} has {(now.get(key) or b'nothing')[:60]}; written to it: {journal[-8:]}; "
                  f"etcd killed at {killed_at}")
        assert not wrong, f"lost update, resurrected key or damaged value: {wrong[:5]}"
        assert set(now) <= set(keys)
        total = lambda name: sum(getattr(w, name) for w in writers)
        done = {"atrest killed": tool_kills, "etcd killed": etcd_kills, "compactions": compactions,
                "runs ended": finished, "conflicts": conflicts, "writes acknowledged": total("acknowledged"),
                "refused": total("refused"), "unknown": total("unknown")}
        print(f"round {number}: ok, {len(now)} of {len(keys)} keys left; {sentence(done)}", flush=True)
        return done
    finally:
        etcd.kill()
        etcd.log.close()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"{rounds} rounds, seed {seed}", flush=True)
    rng = random.Random(seed)
    totals = {"void": 0}
    for number in range(1, rounds + 1):
        while (done := one_round(number, rng)) is None:
            totals["void"] += 1
        for what, n in done.items():
            totals[what] = totals.get(what, 0) + n
    print(f"{rounds} rounds ok; {sentence(totals)}; none lost")


if __name__ == "__main__":
    main()
