//! A real nats-server on loopback, and a writer of what kine writes into it. The server is started
//! once for the whole test program, and ends with it, however it ends.
//!
//! Where the program is missing, tests say so and pass: [`Server::get`] is the one place that
//! decides it.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, HeaderMap};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::certs::Certs;
use super::database::{KEEPER, PASSWORD};

/// Loaded machines start servers slowly; a start that needs longer than this failed.
const READY: Duration = Duration::from_mins(1);
/// Most messages of a key that buckets keep, as kine allows it.
const HISTORY: u32 = 64;

/// A running server.
pub struct Server {
    pub port: u16,
    pub certs: Certs,
    runtime: Runtime,
    /// Its end is the server's.
    _stdin: ChildStdin,
}

impl Server {
    /// The one of this run; `None`, and a line that says so, where it is not installed. Who
    /// connects: `k3s`; `stranger`, who may ask for nothing; `elsewhere`, of an account without
    /// `JetStream`.
    pub fn get() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        SERVER.get_or_init(|| start("")).as_ref()
    }

    /// Another one, which takes nobody without TLS.
    pub fn tls() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        let tls = "tls { cert_file: \"DIR/server.crt\", key_file: \"DIR/server.key\", \
            ca_file: \"DIR/ca.crt\", verify: true }";
        SERVER.get_or_init(|| start(tls)).as_ref()
    }

    fn client(&self) -> Client {
        let options = ConnectOptions::with_user_and_password("k3s".into(), PASSWORD.into())
            .connection_timeout(READY)
            .request_timeout(Some(READY));
        let connecting = options.connect(format!("nats://127.0.0.1:{}", self.port));
        self.runtime.block_on(connecting).unwrap()
    }

    fn ask(&self, client: &Client, subject: String, body: &Value) -> Value {
        let asked = client.request(subject, body.to_string().into());
        let answer = self.runtime.block_on(asked).unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert!(answer.get("error").is_none(), "{answer}");
        answer
    }

    /// Makes a bucket as kine does (k3s-io/kine `pkg/drivers/nats/new.go`; nats-io/nats.go
    /// `jetstream/kv.go`: `prepareKeyValueConfig`), whose first revision is `first`.
    pub fn bucket(&self, name: &str, history: u32, first: i64) -> Writer<'_> {
        let client = self.client();
        let config = json!({
            "name": format!("KV_{name}"), "description": "Holds kine key/values",
            "subjects": [format!("$KV.{name}.>")], "max_msgs_per_subject": history,
            "discard": "new", "allow_rollup_hdrs": true, "deny_delete": true,
            "allow_direct": true, "num_replicas": 1, "storage": "file", "first_seq": first,
        });
        self.ask(&client, format!("$JS.API.STREAM.CREATE.KV_{name}"), &config);
        Writer { server: self, client, bucket: name.to_owned(), last: first - 1 }
    }

    /// Makes a bucket with the rows of an `SQLite` database, each at its own revision.
    pub fn load(&self, name: &str, from: &Connection) -> Writer<'_> {
        let rows = rows(from);
        let first = rows.first().map_or(1, |row| row.id);
        let mut writer = self.bucket(name, HISTORY, first);
        for row in &rows {
            writer.fill(row.id - 1);
            writer.put(row);
        }
        writer.finish();
        writer
    }

    /// What the stream is now.
    pub fn state(&self, name: &str) -> Value {
        let asked =
            self.ask(&self.client(), format!("$JS.API.STREAM.INFO.KV_{name}"), &Value::Null);
        asked["state"].clone()
    }

    /// The stream without what differs by who reads.
    pub fn checksum(&self, name: &str) -> Value {
        let mut state = self.state(name);
        state.as_object_mut().unwrap().remove("consumer_count");
        state
    }

    /// Waits until nobody reads.
    pub fn unread(&self, name: &str) {
        let start = Instant::now();
        while self.state(name)["consumer_count"] != 0 {
            // A reader that was not told to go is kept for half a minute.
            assert!(start.elapsed() < 3 * READY, "a reader is left");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The address of a bucket; who connects is a token, or a user with a password.
    pub fn url(&self, who: &str, bucket: &str) -> String {
        let at = if who.is_empty() { "" } else { "@" };
        format!("nats://{who}{at}127.0.0.1:{}?bucket={bucket}&noEmbed", self.port)
    }
}

/// A row of kine's table.
#[derive(Clone, Default)]
pub struct Row {
    pub id: i64,
    pub name: String,
    pub created: bool,
    pub deleted: bool,
    pub create_revision: i64,
    pub prev_revision: i64,
    pub lease: i64,
    pub value: Vec<u8>,
}

/// The rows of an `SQLite` database, without kine's own; of a deletion the value that it deletes.
fn rows(from: &Connection) -> Vec<Row> {
    let mut statement = from
        .prepare(
            "SELECT id, CAST(name AS TEXT), created, deleted, create_revision, prev_revision,
                lease, CAST(coalesce(CASE deleted WHEN 0 THEN value ELSE old_value END, '') AS BLOB)
             FROM kine WHERE name NOT LIKE 'gap-%' AND name <> 'compact_rev_key' ORDER BY id",
        )
        .unwrap();
    let row = |row: &rusqlite::Row<'_>| {
        Ok(Row {
            id: row.get(0)?,
            name: row.get(1)?,
            created: row.get(2)?,
            deleted: row.get(3)?,
            create_revision: row.get(4)?,
            prev_revision: row.get(5)?,
            lease: row.get(6)?,
            value: row.get(7)?,
        })
    };
    statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Writes into a bucket.
pub struct Writer<'s> {
    server: &'s Server,
    client: Client,
    bucket: String,
    /// The last revision.
    pub last: i64,
}

impl Writer<'_> {
    fn publish(&mut self, subject: &str, headers: HeaderMap, body: Vec<u8>) {
        let subject = format!("$KV.{}.{subject}", self.bucket);
        let sent = self.client.publish_with_headers(subject, headers, body.into());
        self.server.runtime.block_on(sent).unwrap();
        self.last += 1;
    }

    /// Uses revisions up to `to` that nothing is left of.
    pub fn fill(&mut self, to: i64) {
        while self.last < to {
            self.publish("filler", HeaderMap::new(), Vec::new());
        }
    }

    /// Writes a row as kine does (k3s-io/kine `pkg/drivers/nats/backend.go`: `Create`, `Update`,
    /// `Delete`); a deletion takes two revisions.
    pub fn put(&mut self, row: &Row) {
        // The KeyValue of a deletion is the one before it.
        let data = json!({
            "KV": {
                "Key": row.name, "Value": BASE64_STANDARD.encode(&row.value), "Version": 0,
                "CreateRevision": row.create_revision,
                "ModRevision": if row.deleted { row.prev_revision } else { 0 },
                "Lease": row.lease,
            },
            "PrevRevision": row.prev_revision, "Create": row.created, "Delete": row.deleted,
        });
        let subject = subject(&row.name);
        self.publish(&subject, HeaderMap::new(), compressed(data.to_string().as_bytes()));
        assert_eq!(self.last, row.id);
        if row.deleted {
            let mut mark = HeaderMap::new();
            mark.insert("KV-Operation", "DEL");
            self.publish(&subject, mark, Vec::new());
        }
    }

    /// Anything under a key.
    pub fn raw(&mut self, name: &str, body: &[u8]) {
        self.publish(&subject(name), HeaderMap::new(), body.to_vec());
    }

    /// Waits until all is written, and takes away what filled.
    pub fn finish(&mut self) {
        let start = Instant::now();
        while self.server.state(&self.bucket)["last_seq"] != self.last {
            assert!(start.elapsed() < READY, "not all is written");
            thread::sleep(Duration::from_millis(20));
        }
        let purge = format!("$JS.API.STREAM.PURGE.KV_{}", self.bucket);
        let filler = json!({"filter": format!("$KV.{}.filler", self.bucket)});
        self.server.ask(&self.client, purge, &filler);
    }

    /// As an administrator makes the stream forget.
    pub fn keep(&self, history: u32) {
        let name = &self.bucket;
        let info = format!("$JS.API.STREAM.INFO.KV_{name}");
        let mut config = self.server.ask(&self.client, info, &Value::Null)["config"].take();
        config["max_msgs_per_subject"] = history.into();
        self.server.ask(&self.client, format!("$JS.API.STREAM.UPDATE.KV_{name}"), &config);
    }
}

/// The subject of a key (k3s-io/kine `pkg/drivers/nats/codec.go`: `Encode`).
fn subject(key: &str) -> String {
    let (mut out, parts) = match key.strip_prefix('/') {
        Some(parts) => (String::new(), parts),
        None => ("meta.".to_owned(), key),
    };
    for (i, part) in parts.split('/').enumerate() {
        let part = if part.is_empty() { "/" } else { part };
        let dot = if i > 0 { "." } else { "" };
        write!(out, "{dot}{}", base58(part.as_bytes())).unwrap();
    }
    out
}

/// Digit by digit: the number is divided by 58 until nothing is left.
fn base58(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut out = Vec::new();
    let mut number = bytes.to_vec();
    while number.iter().any(|b| *b != 0) {
        let mut rest = 0;
        for byte in &mut number {
            let all = rest * 256 + u32::from(*byte);
            *byte = u8::try_from(all / 58).unwrap();
            rest = all % 58;
        }
        out.push(DIGITS[rest as usize]);
    }
    out.extend(bytes.iter().take_while(|b| **b == 0).map(|_| DIGITS[0]));
    out.reverse();
    String::from_utf8(out).unwrap()
}

/// An S2 stream of one block: a run of 16 bytes that repeats the one before it becomes a copy, the
/// rest literals (klauspost/compress `s2/README.md`).
fn compressed(data: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    let mut length = data.len();
    while length >= 0x80 {
        block.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    block.push(u8::try_from(length).unwrap());
    let runs: Vec<&[u8]> = data.chunks(16).collect();
    for (i, run) in runs.iter().enumerate() {
        let size = u8::try_from(run.len()).unwrap();
        if i > 0 && *run == runs[i - 1] {
            block.extend([(size - 1) << 2 | 2, 16, 0]);
        } else {
            block.push((size - 1) << 2);
            block.extend_from_slice(run);
        }
    }
    let mut out = b"\xff\x06\0\0S2sTwO\0".to_vec();
    out.extend_from_slice(&u32::try_from(block.len() + 4).unwrap().to_le_bytes()[..3]);
    let sum = crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&block);
    out
}

fn start(tls: &str) -> Option<Server> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/nats/nats-server");
    if !program.exists() {
        println!("skipped: nats-server is not installed (scripts/setup installs it)");
        return None;
    }
    // The keeper removes it.
    let dir = tempfile::Builder::new().prefix("atrest-nats-").tempdir().unwrap().keep();
    let certs = Certs::new();
    for (from, name) in [
        (&certs.ca, "ca.crt"),
        (&certs.server.cert, "server.crt"),
        (&certs.server.key, "server.key"),
    ] {
        fs::copy(from, dir.join(name)).unwrap();
    }
    let config = format!(
        "host: 127.0.0.1, port: -1, max_payload: 8MB, ports_file_dir: \"DIR\"
         jetstream {{ store_dir: \"DIR/store\", max_file_store: 1GB, max_memory_store: 64MB }}
         {tls}
         accounts {{
           K {{
             jetstream: enabled
             users: [
               {{ user: k3s, password: {PASSWORD} }}
               {{ user: stranger, password: {PASSWORD}
                  permissions: {{ publish: {{ deny: \"$JS.API.>\" }} }} }}
             ]
           }}
           N {{ users: [ {{ user: elsewhere, password: {PASSWORD} }} ] }}
         }}\n"
    );
    let file = dir.join("server.conf");
    fs::write(&file, config.replace("DIR", dir.to_str().unwrap())).unwrap();
    let mut keeper = Command::new("sh");
    keeper.args(["-c", KEEPER, "sh"]).arg(&dir).arg("KILL").arg(&program).arg("-c").arg(&file);
    keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut keeper = keeper.current_dir(&dir).spawn().unwrap();
    let stdin = keeper.stdin.take().unwrap();
    let start = Instant::now();
    let port = loop {
        if let Some(port) = listening(&dir) {
            break port;
        }
        if keeper.try_wait().unwrap().is_some() {
            let mut log = String::new();
            keeper.stderr.take().unwrap().read_to_string(&mut log).unwrap();
            panic!("nats-server ended: {log}");
        }
        assert!(start.elapsed() < READY, "nats-server does not listen within {READY:?}");
        thread::sleep(Duration::from_millis(20));
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    Some(Server { port, certs, runtime, _stdin: stdin })
}

/// The port that the server chose: it writes it down once it listens.
fn listening(dir: &Path) -> Option<u16> {
    let mut files = fs::read_dir(dir).unwrap().flatten().map(|e| e.path());
    let ports: PathBuf = files.find(|p| p.extension().is_some_and(|e| e == "ports"))?;
    let all: Value = serde_json::from_slice(&fs::read(ports).ok()?).ok()?;
    all["nats"][0].as_str()?.rsplit_once(':')?.1.parse().ok()
}
