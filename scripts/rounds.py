#!/usr/bin/env python3
"""`scrub --apply` and `rotate --apply` on three etcd members of which some are away: killed
(SIGKILL), or stopped for a while (SIGSTOP), at random moments; in every third round the program
itself is killed too.

usage: scripts/rounds [ROUNDS] [SEED]         (20 rounds unless told; every second one rotates)

Each round begins with Secrets that were plaintext once. Members go away one at a time, so that the
other two always are a quorum. What must hold, by what etcd's own logs and a writer say:
  - no member is defragmented that was begun while another one was away, and never two at once
  - while all members run, the cluster takes writes (but for the time of an election)
  - the program ends with 0, 1, 4, or by our hand, and run again comes to its end
  - then every Secret is what it was, `residue` finds nothing on any member, and no file of a
    member's database has any of the plaintext's bytes. In every fifth round the write-ahead logs
    are rotated by the commands of the report, too, and all files of the data directories searched
Environment: ATREST (default target/debug/atrest), ATREST_CHAOS_ETCD (default: /usr/bin/etcd),
ATREST_ROUNDS_AT_ONCE (rounds at the same time, default 1), ATREST_ROUNDS_KEEP (keeps what failed), TMPDIR
(where the members lie: a disk that takes seconds to write makes them miss each other's heartbeats).
"""
import base64
import concurrent.futures
import datetime
import hashlib
import http.client
import http.server
import json
import os
import random
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time

from chaos import ATREST, CONFIG, b64, free_port

ETCD = os.environ.get("ATREST_CHAOS_ETCD", "/usr/bin/etcd")
MARKER = "throwaway-marker"
PREFIX = "/registry/secrets/rounds/"
KEY = "  - secretbox: {keys: [{name: old, secret: %s}]}\n" % base64.b64encode(b"rounds" * 5 + b"!!").decode()
# A defragmentation that begins this soon after a member went away had looked before.
GRACE = 0.5
# How long a cluster of which all members run may take no write: an election, and a second one.
ELECTION = 8.0
HOSTS = ("cp-1", "cp-2")


class Failed(Exception):
    pass


def secret(name, text):
    """A Secret as stored, in JSON, which the API server reads too."""
    return json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "rounds"},
                       "data": {"v": b64(text.encode())}, "stringData": {"v": text}}).encode()


class Member:
    def __init__(self, folder, number):
        self.name, self.client, self.peer = f"m{number}", free_port(), free_port()
        self.data = os.path.join(folder, self.name)
        self.log = os.path.join(folder, f"{self.name}.log")
        self.process, self.stopped = None, False
        self.away = []  # [from, to] of times at which it was away by our hand

    @property
    def url(self):
        return f"http://127.0.0.1:{self.client}"

    def call(self, path, body, timeout=2):
        connection = http.client.HTTPConnection("127.0.0.1", self.client, timeout=timeout)
        try:
            connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            text = response.read()
            if response.status != 200:
                raise OSError(text.decode(errors="replace"))
            return json.loads(text)
        finally:
            connection.close()

    def answers(self):
        try:
            self.call("/v3/kv/range", {"key": b64(b"x")})
            return True
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def alive(self):
        if self.process.poll() is not None:
            raise Failed(f"etcd {self.name} ended by itself, status {self.process.returncode}")


class Cluster:
    def __init__(self, folder):
        self.members = [Member(folder, i) for i in range(3)]
        for member in self.members:
            self.launch(member)
        for member in self.members:
            self.wait(member)

    def launch(self, member, *more):
        peer = f"http://127.0.0.1:{member.peer}"
        all_peers = ",".join(f"{m.name}=http://127.0.0.1:{m.peer}" for m in self.members)
        with open(member.log, "ab") as log:
            member.process = subprocess.Popen(
                [ETCD, f"--name={member.name}", f"--data-dir={member.data}", "--logger=zap",
                 f"--listen-client-urls={member.url}", f"--advertise-client-urls={member.url}",
                 f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
                 f"--initial-cluster={all_peers}", *more],
                stdout=log, stderr=log)

    def wait(self, member):
        end = time.monotonic() + 60
        while not member.answers():
            member.alive()
            if time.monotonic() > end:
                raise Failed(f"{member.name} does not answer")
            time.sleep(0.05)

    def endpoints(self):
        return ",".join(m.url for m in self.members)

    def kill(self, member):
        member.alive()
        member.away.append([time.time(), None])
        member.process.kill()
        member.process.wait()

    def stop(self, member):
        member.alive()
        member.away.append([time.time(), None])
        member.process.send_signal(signal.SIGSTOP)
        member.stopped = True

    def back(self, member):
        member.away[-1][1] = time.time()
        if member.stopped:
            member.process.send_signal(signal.SIGCONT)
            member.stopped = False
        else:
            self.launch(member)
        self.wait(member)

    def end(self):
        for member in self.members:
            if member.process.poll() is None:
                member.process.send_signal(signal.SIGCONT)
                member.process.terminate()
        for member in self.members:
            try:
                member.process.wait(20)
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()

    def put_many(self, entries):
        puts = [{"request_put": {"key": b64(k.encode()), "value": b64(v)}} for k, v in entries]
        for at in range(0, len(puts), 50):
            self.members[0].call("/v3/kv/txn", {"success": puts[at:at + 50]}, timeout=20)


class Heart(threading.Thread):
    """Writes all the time, to whichever member takes it."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster, self.ended = cluster, threading.Event()
        self.beats = [time.time()]

    def run(self):
        turn = 0
        while not self.ended.wait(0.05):
            member = self.cluster.members[turn % 3]
            turn += 1
            try:
                member.call("/v3/kv/put", {"key": b64(b"/heart"), "value": b64(b"x")}, timeout=1)
                self.beats.append(time.time())
            except (OSError, http.client.HTTPException, ValueError):
                pass

    def longest(self):
        """The longest time without a write while every member ran, which begins when the last one
        that was away came back."""
        away = [(a, b or time.time()) for m in self.cluster.members for a, b in m.away]
        worst = 0.0
        for begin, end in zip(self.beats, self.beats[1:] + [time.time()]):
            for a, b in away:
                if a < end and b > begin:
                    begin = max(begin, min(b, end))
            worst = max(worst, end - begin)
        return worst


class Chaos(threading.Thread):
    """Takes one member away after the other, and brings it back."""

    def __init__(self, cluster, rng, times):
        super().__init__(daemon=True)
        self.cluster, self.rng, self.times = cluster, rng, times
        self.kills = self.stops = 0
        self.error = None

    def run(self):
        try:
            for _ in range(self.times):
                time.sleep(self.rng.uniform(0.0, 1.5))
                member = self.rng.choice(self.cluster.members)
                if self.rng.random() < 0.5:
                    self.kills += 1
                    self.cluster.kill(member)
                else:
                    self.stops += 1
                    self.cluster.stop(member)
                time.sleep(self.rng.choice((self.rng.uniform(0.05, 0.5), self.rng.uniform(1.0, 6.0))))
                self.cluster.back(member)
        except Exception as e:  # told by the round
            self.error = e


class Servers:
    """Two API servers that say which configuration each has loaded."""

    def __init__(self, folder):
        self.loaded = [b"", b""]
        pem = os.path.join(folder, "servers.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem, "-out", pem + ".crt"],
            check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem + ".crt", pem)
        self.all, self.urls = [], []
        for at in range(2):
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler(at))
            server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self.all.append(server)
            self.urls.append(f"https://127.0.0.1:{server.server_port}")
        self.kubeconfig = os.path.join(folder, "kubeconfig")
        with open(self.kubeconfig, "w") as file:
            file.write("apiVersion: v1\nkind: Config\ncurrent-context: r\ncontexts:\n"
                       "- {name: r, context: {cluster: r, user: r}}\nclusters:\n- name: r\n  cluster: "
                       f"{{server: '{self.urls[0]}', insecure-skip-tls-verify: true}}\n"
                       "users:\n- {name: r, user: {token: throwaway}}\n")

    def handler(self, at):
        servers = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                who = hashlib.sha256(HOSTS[at].encode()).hexdigest()
                what = hashlib.sha256(servers.loaded[at]).hexdigest()
                body = ("apiserver_encryption_config_controller_last_config_info"
                        f'{{apiserver_id_hash="sha256:{who}",hash="sha256:{what}"}} 1\n'
                        'kubernetes_build_info{git_version="v1.36.0"} 1\n').encode()
                self.send_response(200 if self.path == "/metrics" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        return Handler

    def end(self):
        for server in self.all:
            server.shutdown()
            server.server_close()


class Round:
    def __init__(self, number, rng, folder):
        self.number, self.rng, self.folder = number, rng, folder
        self.what = "rotate" if number % 2 == 0 else "scrub"
        self.with_log = number % 5 == 1
        names = {f"s{i:04}": f"{MARKER}-{i} " * rng.randrange(1, 80) for i in range(300)}
        self.entries = {PREFIX + name: secret(name, text) for name, text in names.items()}
        self.cluster = Cluster(folder)
        self.runs = self.killed = 0
        self.turn = 1  # which rotation
        self.write("enc.yaml", CONFIG + KEY + "  - identity: {}\n")

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)

    def command(self, words, *more):
        return [ATREST, *words.split(), *more, "--encryption-config", self.path("enc.yaml"),
                "--endpoints", self.cluster.endpoints()]

    def finish(self, words, *more):
        done = subprocess.run(self.command(words, *more), capture_output=True, timeout=300)
        if done.returncode:
            raise Failed(f"{words}: status {done.returncode}: {done.stderr.decode()}")
        return json.loads(done.stdout) if "-w json" in words else None

    def attempt(self, words, *more, kill=False):
        """One run: its status (none where it was killed), what it wrote, and its errors."""
        self.runs += 1
        process = subprocess.Popen(self.command(words, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=self.rng.uniform(0.05, 2.5) if kill else 240)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            if not kill:
                raise Failed(f"{words} does not end") from None
            self.killed += 1
            return None, None, ""
        if process.returncode not in (0, 1, 4):
            raise Failed(f"{words}: status {process.returncode}: {err.decode()}")
        return process.returncode, json.loads(out) if out else None, err.decode()

    def scrub(self, may_kill):
        """True when it came to its end."""
        room = [word for m in self.cluster.members for word in ("--free-disk", f"{m.name}=1000000000000")]
        status, _, self.last = self.attempt("scrub --apply -w json --settle 4s --receipts", self.path("receipts"), *room,
                                    kill=may_kill)
        return status == 0

    def rotate(self, may_kill):
        servers = [word for url in self.servers.urls for word in ("--apiserver", url)]
        status, said, self.last = self.attempt(
            "rotate --apply -w json --no-backup --command-timeout 3s --confirm-apiserver", "--key-name",
            f"new-{self.turn}", "--state", self.path(f"rotation{self.turn}.json"),
            "--kubeconfig", self.servers.kubeconfig, *servers, kill=may_kill)
        if status is None or said is None:
            return False
        self.last += json.dumps(said.get("steps"))[:2000]
        # What a person does: the file goes to each machine, one after the other.
        file = {"load-added": "1-added", "load-promoted": "2-promoted", "load-retired": "3-retired"}.get(said["next"])
        if file:
            with open(self.path(f"rotation{self.turn}-{file}.yaml"), "rb") as there:
                bytes = there.read()
            self.servers.loaded = [bytes, bytes]
            self.write("enc.yaml", bytes.decode())
        return status == 0 and said["done"]

    def run(self):
        self.cluster.put_many(list(self.entries.items()))
        self.finish("migrate --apply --no-backup --no-apiserver --batch 50")
        step = self.scrub
        if self.what == "rotate":
            self.servers = Servers(self.folder)
            with open(self.path("enc.yaml"), "rb") as file:
                start = file.read()
            self.servers.loaded, step = [start, start], self.rotate
        self.heart = Heart(self.cluster)
        chaos = Chaos(self.cluster, random.Random(self.rng.random()), self.rng.randrange(3, 6))
        self.heart.start()
        chaos.start()
        done, again, kills = False, 0, self.number % 3 == 0
        while chaos.is_alive() or not done:
            again += 1
            if again > 100:
                raise Failed(f"{self.what} does not come to its end: {self.last}")
            if done and self.what == "scrub":
                # Something to remove again, while members go away.
                self.more(again)
            if done and self.what == "rotate":
                self.turn += 1
            done = step(kills and chaos.is_alive() and self.rng.random() < 0.5)
        chaos.join()
        if chaos.error:
            raise chaos.error
        self.heart.ended.set()
        self.heart.join()
        self.check(chaos)

    def more(self, again):
        """Another Secret that was plaintext. Members away may refuse it, which is nothing to us."""
        key = f"{PREFIX}more-{again}"
        value = secret(f"more-{again}", f"{MARKER}-more-{again} " * 50)
        for member in self.cluster.members:
            try:
                member.call("/v3/kv/put", {"key": b64(key.encode()), "value": b64(value)}, timeout=2)
                self.entries[key] = value
                break
            except (OSError, http.client.HTTPException, ValueError):
                continue
        self.attempt("migrate --apply -w json --no-backup --no-apiserver --command-timeout 3s")

    def check(self, chaos):
        if self.what == "rotate":
            self.servers.end()
        for member in self.cluster.members:
            self.cluster.wait(member)
        # After a rotation, or where the last Secret came while a member was away.
        self.finish("migrate --apply --no-backup --no-apiserver --batch 50")
        if not any(self.scrub(False) for _ in range(5)):
            raise Failed("the last scrub does not come to its end")
        self.finish("residue -w json --every-member --fail-on plaintext")
        scan = self.finish("scan --verify -w json --fail-on stale,unreadable,plaintext")
        if scan["totals"]["entries"] < len(self.entries):
            raise Failed(f"{scan['totals']['entries']} of {len(self.entries)} Secrets are there")
        for key in self.rng.sample(sorted(self.entries), 5):
            got = self.finish("get --reveal -w json", key)
            if got["data"]["v"] != json.loads(self.entries[key])["data"]["v"]:
                raise Failed(f"{key} is not what it was")
        defrags = self.defrags()
        quiet = self.heart.longest()
        if quiet > ELECTION:
            raise Failed(f"no write was taken for {quiet:.1f} s while every member ran")
        if self.with_log:
            self.rotate_logs()
        self.cluster.end()
        files = self.searched()
        print(f"{self.number:5}  {self.what:6}  {self.runs:4}  {self.killed:14}  {chaos.kills:14}  {chaos.stops:15}  "
              f"{len(defrags):8}  {quiet:11.1f}  {files:5}{'  with logs' if self.with_log else ''}", flush=True)
        return self

    def defrags(self):
        """Every defragmentation, by the members' logs: none while another member was away."""
        found = []
        for member in self.cluster.members:
            with open(member.log, errors="replace") as log:
                for line in log:
                    if '"defragmenting"' not in line and '"defragmented"' not in line:
                        continue
                    at = re.search(r'"ts":"([^"]+)"', line)
                    time_at = datetime.datetime.strptime(at.group(1), "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()
                    found.append((time_at, member, '"defragmented"' in line))
        found.sort(key=lambda f: f[0])
        begun, busy = [], None
        for at, member, end in found:
            if end:
                busy = None
                continue
            # Who was killed in the middle of it is not at it any more.
            if busy and busy is not member and not any(a > began for a, _ in busy.away):
                raise Failed(f"{member.name} was defragmented while {busy.name} was")
            busy, began = member, at
            begun.append((at, member))
            for other in self.cluster.members:
                for a, b in other.away:
                    if other is not member and a + GRACE < at < (b or time.time()):
                        raise Failed(f"{member.name} was defragmented {at - a:.1f} s after {other.name} went away")
        return begun

    def rotate_logs(self):
        """What the report of `scrub` says to do, one member after the other."""
        for member in self.cluster.members:
            member.process.terminate()
            member.process.wait()
            self.cluster.launch(member, "--snapshot-count=100", "--max-wals=1", "--max-snapshots=1")
            self.cluster.wait(member)
        puts, value = 0, b64(b"x" * 1_000_000)
        while puts < 160:
            try:
                self.cluster.members[0].call("/v3/kv/put", {"key": b64(b"atrest-filler"), "value": value}, timeout=30)
                puts += 1
            except (OSError, http.client.HTTPException):
                time.sleep(1)  # a slow disk: the request may be sent again
        self.cluster.members[0].call("/v3/kv/deleterange", {"key": b64(b"atrest-filler")}, timeout=30)
        end = time.monotonic() + 120
        while self.found(logs=True) and time.monotonic() < end:
            time.sleep(1)

    def found(self, logs):
        """Files of the members with any of the plaintext's bytes, and how many were searched."""
        searched, bad = 0, []
        for member in self.cluster.members:
            for folder, _, names in os.walk(member.data):
                if not logs and os.path.basename(folder) == "wal":
                    continue
                for name in names:
                    try:
                        with open(os.path.join(folder, name), "rb") as file:
                            bytes = file.read()
                    except FileNotFoundError:
                        continue
                    searched += 1
                    if MARKER.encode() in bytes:
                        bad.append(os.path.join(member.name, os.path.relpath(folder, member.data), name))
        self.count = searched
        return bad

    def searched(self):
        bad = self.found(logs=self.with_log)
        if bad:
            raise Failed(f"the plaintext lies in {', '.join(bad)}")
        return self.count


def one_round(number, seed):
    folder = tempfile.mkdtemp(prefix="atrest-rounds-")
    one, keep = None, False
    try:
        one = Round(number, random.Random(f"{seed}/{number}"), folder)
        one.run()
        return True
    except (Failed, OSError, subprocess.SubprocessError, http.client.HTTPException, ValueError, KeyError) as e:
        print(f"{number:5}  FAILED: {type(e).__name__} {e}", flush=True)
        keep = "ATREST_ROUNDS_KEEP" in os.environ
        return False
    finally:
        if one is not None:
            one.cluster.end()
        if keep:
            print(f"kept: {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"{rounds} rounds, seed {seed}\n"
          "round  what    runs  program killed  members killed  members stopped  defrags  longest s  files",
          flush=True)
    at_once = int(os.environ.get("ATREST_ROUNDS_AT_ONCE", "1"))
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        failed = list(pool.map(lambda number: one_round(number, seed), range(1, rounds + 1))).count(False)
    print(f"{rounds - failed} of {rounds} rounds ok")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
