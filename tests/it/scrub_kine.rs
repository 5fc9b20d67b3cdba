//! `scrub --kine` on databases that another program makes, has open, and leaves behind.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::bin;
use crate::support::bin::{Bin, Done};

/// In every Secret, before it was encrypted.
const MARKER: &str = "throwaway-marker";

/// kine's table (k3s-io/kine `pkg/drivers/sqlite/sqlite.go`), written as kine writes: Secrets as
/// plaintext, each then encrypted, some of them deleted. Words: file, journal, how many, what is
/// written last.
const SERVER: &str = r"
import sqlite3, sys
path, journal, count, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
c = sqlite3.connect(path, isolation_level=None)
c.executescript(f'PRAGMA journal_mode = {journal}; PRAGMA wal_autocheckpoint = 200;' + '''
CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER,
  deleted INTEGER, create_revision INTEGER, prev_revision INTEGER, lease INTEGER,
  value BLOB, old_value BLOB);
CREATE INDEX kine_name_index ON kine (name);
CREATE INDEX kine_name_id_index ON kine (name,id);
CREATE INDEX kine_id_deleted_index ON kine (id,deleted);
CREATE INDEX kine_prev_revision_index ON kine (prev_revision);
CREATE UNIQUE INDEX kine_name_prev_revision_uindex ON kine (name, prev_revision);
INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value)
  VALUES ('compact_rev_key', 1, 0, 0, 0, 0, x'');''')
newest = {}
def write(name, value, deleted=0):
    before = newest.get(name)
    row, create, old = before if before else (0, 0, None)
    c.execute('INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value, old_value) VALUES (?,?,?,?,?,0,?,?)',
              (name, int(not before), deleted, create, row, value, old))
    at = c.execute('SELECT last_insert_rowid()').fetchone()[0]
    newest[name] = (at, create or at, value)
def key(i): return f'/registry/secrets/ns/s{i:05}'
def plain(i): return b'k8s\0\n\x0c\n\x02v1\x12\x06Secret throwaway-marker-%05d-' % i + b'throwaway-marker ' * (i % 500)
def encrypted(i): return b'k8s:enc:secretbox:v1:one:' + bytes(255 - b for b in plain(i))
c.execute('BEGIN')
for i in range(count): write(key(i), plain(i))
c.execute('COMMIT')
for i in range(0, count, 10): write(key(i), plain(i), 1)
c.execute('BEGIN')
for i in range(count):
    if i % 10: write(key(i), encrypted(i))
c.execute('COMMIT')
c.execute('DELETE FROM kine WHERE id BETWEEN 12 AND 20')
if last == 'deletion': write(key(1), encrypted(1), 1)
if last == 'plaintext': write(key(1), plain(1))
print('ready', flush=True)
sys.stdin.read()
c.close()
";

/// A program that has the database open.
struct Server(Child);

impl Server {
    fn start(path: &Path, journal: &str, count: usize, last: &str) -> Self {
        let mut server = Command::new("python3")
            .args(["-c", SERVER])
            .arg(path)
            .args([journal, &count.to_string(), last])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(server)
    }

    /// As `systemctl stop`.
    fn stop(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }

    /// As a crash: the write-ahead log stays.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("db/state.db")
    }

    fn start(&self, journal: &str, count: usize, last: &str) -> Server {
        fs::create_dir_all(self.path().parent().unwrap()).unwrap();
        Server::start(&self.path(), journal, count, last)
    }

    fn scrub(&self, words: &str) -> Bin {
        bin().words("scrub -w json --kine").arg(self.path()).words(words)
    }

    fn applied(&self) -> Bin {
        self.scrub("--apply --receipts").arg(self.0.path().join("receipts"))
    }

    /// What Debian's own sqlite3 says.
    fn sql(&self, sql: &str) -> String {
        let done = Command::new("sqlite3").arg(self.path()).arg(sql).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Files beside the database, and itself, that hold the plaintext.
    fn with_plaintext(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.path().parent().unwrap()).unwrap();
        let holds = |path: &PathBuf| {
            memchr::memmem::find(&fs::read(path).unwrap(), MARKER.as_bytes()).is_some()
        };
        files.map(|f| f.unwrap().path()).filter(holds).collect()
    }

    /// Every object that is there, as it is stored.
    fn live(&self) -> String {
        self.sql(
            "SELECT name, id, create_revision, prev_revision, hex(value) FROM kine \
             WHERE id IN (SELECT max(id) FROM kine GROUP BY name) AND NOT deleted \
             AND name != 'compact_rev_key' ORDER BY name",
        )
    }

    /// Nothing is left, and kine can go on.
    #[track_caller]
    fn is_scrubbed(&self) {
        assert_eq!(self.with_plaintext(), Vec::<PathBuf>::new());
        bin().words("residue --fail-on plaintext --kine").arg(self.path()).run().ok();
        assert_eq!(self.sql("PRAGMA integrity_check"), "ok");
        let numbers = self.sql(
            "SELECT max(id), (SELECT max(prev_revision) FROM kine WHERE name = 'compact_rev_key'), \
             (SELECT seq FROM sqlite_sequence WHERE name = 'kine') FROM kine",
        );
        let numbers: Vec<i64> = numbers.split('|').map(|n| n.parse().unwrap()).collect();
        // A watch from the largest row on must not count as compacted.
        assert!(numbers[0] >= numbers[1] && numbers[2] >= numbers[0], "{numbers:?}");
    }
}

fn sum(found: &Value) -> u64 {
    found["totals"].as_object().unwrap().values().filter_map(Value::as_u64).sum()
}

#[track_caller]
fn cleaned(done: &Done) -> Value {
    let document = done.json();
    assert_eq!((&document["verdict"], &document["stopped"]), (&"clean".into(), &Value::Null));
    document
}

#[test]
fn a_database_is_scrubbed_once_its_server_is_stopped() {
    for (journal, crash) in [("WAL", false), ("WAL", true), ("DELETE", false)] {
        let at = Place::new();
        let server = at.start(journal, 600, "nothing");
        fs::set_permissions(at.path(), fs::Permissions::from_mode(0o640)).unwrap();
        let owned = std::os::unix::fs::chown(at.path(), Some(4242), Some(4343)).is_ok();

        // While the server runs, there is a plan.
        let plan = at.scrub("").run().ok().says("--apply would refuse").json();
        assert_eq!((&plan["schema"], &plan["applied"]), (&"atrest.scrub/v1".into(), &false.into()));
        assert!(sum(&plan["database"]["before"]) > 1000, "{plan}");
        assert_eq!(plan["steps"].as_array().unwrap().len(), 3);
        let before = fs::read(at.path()).unwrap();
        at.applied().run().code(1).says("the database is open: python3 (process ");
        assert!(fs::read(at.path()).unwrap() == before, "it was touched");

        if crash {
            server.kill();
            assert!(at.path().with_file_name("state.db-wal").metadata().unwrap().len() > 0);
        } else {
            server.stop();
        }
        assert!(!at.with_plaintext().is_empty());
        let (inode, live) = (at.path().metadata().unwrap().ino(), at.live());
        let document = cleaned(&at.applied().run().ok());
        let database = &document["database"];
        assert_eq!((sum(&database["after"]), &database["status"]), (0, &"scrubbed".into()));
        assert!(database["forgotten"]["rows"].as_u64() > Some(500), "{database}");
        assert_eq!(at.live(), live, "{journal}: objects changed");
        let file = at.path().metadata().unwrap();
        assert_eq!((file.ino(), file.mode() & 0o777), (inode, 0o640));
        assert!(!owned || (file.uid(), file.gid()) == (4242, 4343));
        at.is_scrubbed();
        let receipts = fs::read_dir(at.0.path().join("receipts")).unwrap();
        let receipts: Vec<_> = receipts.map(|f| f.unwrap().path()).collect();
        assert_eq!(receipts.len(), 2, "{receipts:?}");
        for path in receipts {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains("/registry/secrets/ns/s00002") && !text.contains(MARKER));
            if path.extension().unwrap() == "json" {
                let receipt: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(receipt["schema"], "atrest.scrub-receipt/v1");
                assert_eq!(receipt["database"]["after"]["findings"], Value::Array(vec![]));
            }
        }
        // What is clean is left alone, by a plan as well.
        let bytes = fs::read(at.path()).unwrap();
        cleaned(&at.applied().run().ok());
        assert_eq!(at.scrub("").run().ok().json()["steps"], Value::Array(vec![]));
        assert!(fs::read(at.path()).unwrap() == bytes);
    }
}

/// kine takes its largest row for the current revision.
#[test]
fn a_deletion_that_was_written_last_leaves_its_revision_behind() {
    let at = Place::new();
    at.start("WAL", 50, "deletion").stop();
    let newest: i64 = at.sql("SELECT max(id) FROM kine").parse().unwrap();
    cleaned(&at.applied().run().ok());
    at.is_scrubbed();
    let row = at.sql("SELECT id, name, deleted FROM kine ORDER BY id DESC LIMIT 1");
    assert_eq!(row, format!("{0}|gap-{0}|1", newest + 1));
    // Another plaintext later: the row that fills the gap goes only when there are others.
    at.sql(
        "PRAGMA journal_mode = WAL;
         INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value)
         VALUES ('/registry/secrets/ns/new', 1, 0, 0, 0, 0, CAST('k8s throwaway-marker' AS BLOB));
         INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value, old_value)
         SELECT name, 0, 1, id, id, 0, value, value FROM kine WHERE name = '/registry/secrets/ns/new';",
    );
    cleaned(&at.applied().run().ok());
    at.is_scrubbed();
    assert_eq!(at.sql("SELECT count(*) FROM kine WHERE name LIKE 'gap-%'"), "1");
}

#[test]
fn a_run_that_is_killed_is_gone_on_with() {
    for word in ["searching", "compacted", "writing the file anew", "emptying"] {
        let at = Place::new();
        at.start("WAL", 1000, "nothing").kill();
        let mut run = at.applied().spawn();
        let lines = BufReader::new(run.stderr.take().unwrap()).lines();
        let seen = lines.map_while(Result::ok).any(|line| line.contains(word));
        // It may have come to its end by now, which is as good.
        let _ = run.kill();
        run.wait().unwrap();
        assert!(seen, "no {word}");
        cleaned(&at.applied().run().ok());
        at.is_scrubbed();
        assert_eq!(at.sql("SELECT count(*) FROM kine WHERE NOT deleted"), "901", "{word}");
    }
}

#[test]
fn what_is_refused() {
    let at = Place::new();
    at.start("WAL", 20, "plaintext").stop();
    let bytes = fs::read(at.path()).unwrap();
    at.scrub("").run().code(4).says("1 live entries are stored unencrypted");
    at.applied().run().code(1).says("hint: re-encrypt them first");
    for words in ["--compact-now", "--settle 1s", "--member-data-dir m=/x", "--free-disk m=1"] {
        at.scrub(words).run().code(2).says("is about the members of an etcd");
    }
    // A file that begins as a database and is none further on.
    let broken = at.0.path().join("broken.db");
    let mut file = fs::File::create(&broken).unwrap();
    file.write_all(&bytes[..bytes.len() / 2]).unwrap();
    drop(file);
    let done = bin().words("scrub --apply --kine").arg(&broken).current_dir(at.0.path()).run();
    assert_eq!(done.code, Some(1), "{done}");
    assert!(fs::read(&broken).unwrap() == bytes[..bytes.len() / 2]);
    assert!(fs::read(at.path()).unwrap() == bytes, "it was touched");
}
