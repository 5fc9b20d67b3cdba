//! Real database servers on loopback: Debian's `PostgreSQL` and `MariaDB`. Each is started once
//! for the whole test program, and ends with it, however it ends.
//!
//! Where the programs are missing, tests say so and pass: [`Server::postgres`] and
//! [`Server::mariadb`] are the one place that decides it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use rusqlite::Connection;
use tokio::runtime::Runtime;

use super::certs::Certs;
use super::etcd::free_ports;

/// Loaded machines start servers slowly; a start that needs longer than this failed.
const READY: Duration = Duration::from_mins(1);
/// `nobody` of Debian: `PostgreSQL` does not run as root.
const NOBODY: u32 = 65534;
/// Of the users that tests connect as. It protects nothing.
pub const PASSWORD: &str = "throwaway-test-password";

/// Where Debian's `MariaDB` has the statements that make its own tables, and which they are.
const SCRIPTS: &str = "/usr/share/mysql";
const TABLES: [&str; 2] = ["mysql_system_tables.sql", "mysql_system_tables_data.sql"];

/// Runs a server until stdin ends, then removes its directory. Only the shell knows both ends.
pub const KEEPER: &str = r#"
dir=$1; signal=$2; shift 2
exec 3<&0
"$@" >"$dir/log" 2>&1 3<&- & server=$!
# Nobody may be left to hear that it was killed.
trap '' PIPE
(cat <&3 >/dev/null; kill -s "$signal" $server) & keeper=$!
wait $server
kill $keeper 2>/dev/null
tail -n 20 "$dir/log" >&2
rm -rf "$dir"
"#;

/// Whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    MariaDb,
}

/// A running server.
pub struct Server {
    pub kind: Kind,
    pub port: u16,
    pub certs: Certs,
    /// The socket, for `PostgreSQL` its directory.
    socket: PathBuf,
    runtime: Runtime,
    /// Its end is the server's.
    _stdin: ChildStdin,
}

impl Server {
    /// The `PostgreSQL` of this run; `None`, and a line that says so, where it is not installed.
    pub fn postgres() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        let program = newest("/usr/lib/postgresql", "bin/postgres");
        SERVER.get_or_init(|| program.map(|path| start(Kind::Postgres, &path))).as_ref().or_else(
            || {
                println!("skipped: PostgreSQL is not installed (scripts/setup installs it)");
                None
            },
        )
    }

    /// The `MariaDB` of this run; as there.
    pub fn mariadb() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        let all_there = Path::new(SCRIPTS).join(TABLES[0]).exists();
        let program = Some(PathBuf::from("/usr/sbin/mariadbd"));
        let program = program.filter(|p| all_there && p.exists());
        SERVER.get_or_init(|| program.map(|path| start(Kind::MariaDb, &path))).as_ref().or_else(
            || {
                println!("skipped: MariaDB is not installed (scripts/setup installs it)");
                None
            },
        )
    }

    /// Those that are installed.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        [Self::postgres(), Self::mariadb()].into_iter().flatten()
    }

    /// Runs statements as the administrator; rows as text.
    pub fn sql(&self, database: &str, sql: &str) -> Vec<Vec<Option<String>>> {
        self.try_sql(database, sql).unwrap_or_else(|e| panic!("{:?}: {e}", self.kind))
    }

    fn try_sql(&self, database: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        self.runtime.block_on(async {
            match self.kind {
                Kind::Postgres => {
                    let mut config = tokio_postgres::Config::new();
                    config.host_path(&self.socket).port(self.port).user("postgres");
                    config.dbname(database);
                    let (client, connection) = config
                        .connect(tokio_postgres::NoTls)
                        .await
                        .map_err(|e| format!("{e:?}"))?;
                    tokio::spawn(connection);
                    let rows = client.simple_query(sql).await.map_err(|e| format!("{e:?}"))?;
                    Ok(rows
                        .iter()
                        .filter_map(|message| match message {
                            tokio_postgres::SimpleQueryMessage::Row(row) => Some(
                                (0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect(),
                            ),
                            _ => None,
                        })
                        .collect())
                }
                Kind::MariaDb => {
                    let opts = mysql_async::OptsBuilder::default()
                        .socket(Some(self.socket.to_str().unwrap()))
                        .user(Some("root"))
                        .db_name(Some(database).filter(|name| !name.is_empty()));
                    let mut conn = mysql_async::Conn::new(opts).await.map_err(|e| e.to_string())?;
                    let rows: Vec<mysql_async::Row> =
                        conn.query(sql).await.map_err(|e| e.to_string())?;
                    conn.disconnect().await.map_err(|e| e.to_string())?;
                    Ok(rows
                        .into_iter()
                        .map(|row| {
                            let cell = |value| match value {
                                mysql_async::Value::NULL => None,
                                mysql_async::Value::Bytes(b) => {
                                    Some(String::from_utf8_lossy(&b).into_owned())
                                }
                                other => Some(other.as_sql(true)),
                            };
                            row.unwrap().into_iter().map(cell).collect()
                        })
                        .collect())
                }
            }
        })
    }

    /// Where statements about databases and users run.
    pub fn admin(&self) -> &'static str {
        match self.kind {
            Kind::Postgres => "postgres",
            Kind::MariaDb => "mysql",
        }
    }

    /// Makes a database of the test's own, with kine's table, readable by the user `k3s`.
    pub fn database(&self, name: &str) {
        self.sql(self.admin(), &format!("CREATE DATABASE {name}"));
        self.sql(name, self.schema());
        match self.kind {
            Kind::Postgres => self.sql(name, "GRANT SELECT ON kine TO k3s, tlsonly, root"),
            Kind::MariaDb => {
                self.sql(name, &format!("GRANT SELECT ON {name}.kine TO k3s@'%', tlsonly@'%'"))
            }
        };
    }

    /// k3s-io/kine `pkg/drivers/pgsql/pgsql.go`, `pkg/drivers/mysql/mysql.go`: `schema`; without
    /// the unique index, which rows that are made from an etcd's history would violate.
    fn schema(&self) -> &'static str {
        match self.kind {
            Kind::Postgres => {
                "CREATE TABLE kine (id SERIAL PRIMARY KEY, name VARCHAR(630), created INTEGER,
                    deleted INTEGER, create_revision INTEGER, prev_revision INTEGER,
                    lease INTEGER, value bytea, old_value bytea);
                 CREATE INDEX kine_name_index ON kine (name)"
            }
            Kind::MariaDb => {
                "CREATE TABLE kine (id INTEGER AUTO_INCREMENT, name VARCHAR(630), created INTEGER,
                    deleted INTEGER, create_revision INTEGER, prev_revision INTEGER,
                    lease INTEGER, value MEDIUMBLOB, old_value MEDIUMBLOB, PRIMARY KEY (id),
                    INDEX kine_name_index (name))
                 DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
            }
        }
    }

    /// Makes a database with the rows of an `SQLite` one.
    pub fn load(&self, name: &str, from: &Connection) {
        self.database(name);
        let mut statement = from
            .prepare(
                "SELECT id, CAST(name AS TEXT), created, deleted, create_revision, prev_revision,
                    lease, CAST(value AS BLOB), CAST(old_value AS BLOB) FROM kine ORDER BY id",
            )
            .unwrap();
        let hex = |bytes: Option<Vec<u8>>| match (bytes, self.kind) {
            (None, _) => "NULL".to_owned(),
            (Some(bytes), Kind::Postgres) => format!("'\\x{}'", digits(&bytes)),
            (Some(bytes), Kind::MariaDb) => format!("x'{}'", digits(&bytes)),
        };
        let rows: Vec<String> = statement
            .query_map([], |row| {
                let number = |i| row.get::<_, i64>(i);
                let key = row.get::<_, String>(1)?.replace('\'', "''");
                Ok(format!(
                    "({},'{key}',{},{},{},{},{},{},{})",
                    number(0)?,
                    number(2)?,
                    number(3)?,
                    number(4)?,
                    number(5)?,
                    number(6)?,
                    hex(row.get(7)?),
                    hex(row.get(8)?),
                ))
            })
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        for part in rows.chunks(200) {
            self.sql(name, &format!("INSERT INTO kine VALUES {}", part.join(",")));
        }
    }

    /// How many rows there are, and a sum over all of them.
    pub fn checksum(&self, name: &str) -> Vec<Vec<Option<String>>> {
        match self.kind {
            Kind::Postgres => self.sql(
                name,
                "SELECT count(*), md5(string_agg(md5(kine::text), '' ORDER BY id)) FROM kine",
            ),
            Kind::MariaDb => {
                let mut sums = self.sql(name, "CHECKSUM TABLE kine EXTENDED");
                sums.extend(self.sql(name, "SELECT count(*) FROM kine"));
                sums
            }
        }
    }

    /// The address of a database, as k3s writes it; `user` may have a password.
    pub fn url(&self, user: &str, name: &str) -> String {
        let port = self.port;
        match self.kind {
            Kind::Postgres => format!("postgres://{user}@127.0.0.1:{port}/{name}?sslmode=disable"),
            Kind::MariaDb => format!("mysql://{user}@tcp(127.0.0.1:{port})/{name}"),
        }
    }

    /// As [`Server::url`], without a word about TLS.
    pub fn bare_url(&self, user: &str, name: &str) -> String {
        self.url(user, name).replace("?sslmode=disable", "")
    }
}

fn digits(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, b| {
        write!(out, "{b:02x}").unwrap();
        out
    })
}

/// The program of the newest version below a folder.
fn newest(folder: &str, program: &str) -> Option<PathBuf> {
    let versions = fs::read_dir(folder).ok()?.flatten().map(|e| e.path().join(program));
    versions.filter(|p| p.exists()).max()
}

/// As whom servers run: not as root.
fn unprivileged(command: &mut Command) -> &mut Command {
    if rustix::process::geteuid().is_root() { command.uid(NOBODY).gid(NOBODY) } else { command }
}

/// Gives a file to the user that servers run as, and to nobody else.
fn give(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn start(kind: Kind, program: &Path) -> Server {
    let mut why = String::new();
    // Between choosing a free port and the server's listening on it, another process may take it.
    for _ in 0..5 {
        match try_start(kind, program) {
            Ok(server) => {
                users(&server);
                return server;
            }
            Err(e) => why = e,
        }
    }
    panic!("{kind:?} did not start: {why}");
}

fn try_start(kind: Kind, program: &Path) -> Result<Server, String> {
    // Another user has to come to it.
    let root = rustix::process::geteuid().is_root();
    let parent = if root { PathBuf::from("/tmp") } else { std::env::temp_dir() };
    // The keeper removes it.
    let dir = tempfile::Builder::new().prefix("atrest-db-").tempdir_in(parent).unwrap().keep();
    give(&dir, 0o755);
    let certs = Certs::new();
    for (from, name) in [
        (&certs.ca, "ca.crt"),
        (&certs.server.cert, "server.crt"),
        (&certs.server.key, "server.key"),
    ] {
        fs::copy(from, dir.join(name)).unwrap();
        give(&dir.join(name), 0o600);
    }
    let [port] = free_ports();
    let (arguments, socket, signal) = match kind {
        Kind::Postgres => (postgres(program, &dir, port), dir.clone(), "QUIT"),
        Kind::MariaDb => (mariadb(program, &dir, port), dir.join("socket"), "KILL"),
    };
    let mut keeper = Command::new("sh");
    keeper.args(["-c", KEEPER, "sh"]).arg(&dir).arg(signal).arg(program).args(arguments);
    keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut keeper = unprivileged(&mut keeper).current_dir(&dir).spawn().unwrap();
    let stdin = keeper.stdin.take().unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = Server { kind, port, certs, socket, runtime, _stdin: stdin };
    ready(&server, &mut keeper)?;
    Ok(server)
}

/// Waits until the server answers by its own socket.
fn ready(server: &Server, keeper: &mut Child) -> Result<(), String> {
    let start = Instant::now();
    loop {
        let Err(why) = server.try_sql(server.admin(), "SELECT 1") else { return Ok(()) };
        if keeper.try_wait().unwrap().is_some() {
            let mut log = String::new();
            keeper.stderr.take().unwrap().read_to_string(&mut log).unwrap();
            return Err(log);
        }
        if start.elapsed() > READY {
            return Err(format!("no answer within {READY:?}: {why}"));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn postgres(program: &Path, dir: &Path, port: u16) -> Vec<String> {
    let data = dir.join("data");
    let mut initdb = Command::new(program.with_file_name("initdb"));
    initdb.arg("-D").arg(&data).current_dir(dir);
    initdb.args(["-U", "postgres", "-A", "trust", "--no-sync", "--locale=C", "--encoding=UTF8"]);
    let made = unprivileged(&mut initdb).output().unwrap();
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    let hba = "local all all trust\n\
        hostssl all tlsonly all scram-sha-256\n\
        hostnossl all tlsonly all reject\n\
        hostssl all root all cert\n\
        host all all all scram-sha-256\n";
    fs::write(data.join("pg_hba.conf"), hba).unwrap();
    let file = |name: &str| dir.join(name).display().to_string();
    let mut all: Vec<String> =
        ["-D", &file("data"), "-k", &file(""), "-h", "127.0.0.1", "-p"].map(str::to_owned).to_vec();
    all.push(port.to_string());
    for setting in [
        "fsync=off".to_owned(),
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", file("server.crt")),
        format!("ssl_key_file={}", file("server.key")),
        format!("ssl_ca_file={}", file("ca.crt")),
    ] {
        all.extend(["-c".to_owned(), setting]);
    }
    all
}

/// `mariadb-install-db` does the same, and needs programs of another package.
fn mariadb(program: &Path, dir: &Path, port: u16) -> Vec<String> {
    let data = dir.join("data");
    fs::create_dir(&data).unwrap();
    give(&data, 0o700);
    let common = [
        "--no-defaults".to_owned(),
        format!("--datadir={}", data.display()),
        format!("--tmpdir={}", data.display()),
        format!("--lc-messages-dir={SCRIPTS}"),
        "--innodb-buffer-pool-size=32M".to_owned(),
        "--innodb-flush-log-at-trx-commit=0".to_owned(),
        "--skip-log-bin".to_owned(),
    ];
    let mut bootstrap = Command::new(program);
    bootstrap.args(&common).args(["--bootstrap", "--skip-networking"]).current_dir(dir);
    bootstrap.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = unprivileged(&mut bootstrap).spawn().unwrap();
    let mut words = "create database mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\n\
        SET @skip_auth_anonymous=1;\n"
        .to_owned();
    for script in TABLES {
        words += &fs::read_to_string(Path::new(SCRIPTS).join(script)).unwrap();
    }
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || stdin.write_all(words.as_bytes()));
    let made = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(made.status.success(), "bootstrap: {}", String::from_utf8_lossy(&made.stderr));
    let file = |name: &str| dir.join(name).display().to_string();
    let mut all = common.to_vec();
    all.extend([
        format!("--socket={}", file("socket")),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--port={port}"),
        "--skip-name-resolve".to_owned(),
        format!("--pid-file={}", file("pid")),
        format!("--ssl-cert={}", file("server.crt")),
        format!("--ssl-key={}", file("server.key")),
        format!("--ssl-ca={}", file("ca.crt")),
    ]);
    all
}

/// Who connects: `k3s` in any way, `tlsonly` by TLS alone; `root` of `PostgreSQL` by certificate;
/// `stranger` may read nothing.
fn users(server: &Server) {
    for user in ["k3s", "tlsonly", "stranger"] {
        let sql = match (server.kind, user) {
            (Kind::Postgres, _) => format!("CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'"),
            (Kind::MariaDb, "tlsonly") => {
                format!("CREATE USER {user}@'%' IDENTIFIED BY '{PASSWORD}' REQUIRE SSL")
            }
            (Kind::MariaDb, _) => format!("CREATE USER {user}@'%' IDENTIFIED BY '{PASSWORD}'"),
        };
        server.sql(server.admin(), &sql);
    }
    if server.kind == Kind::Postgres {
        server.sql(server.admin(), "CREATE ROLE root LOGIN");
    }
}
