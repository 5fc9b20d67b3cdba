//! Real etcd servers on loopback.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::certs::Certs;
use super::tools;
pub use super::tools::Version;

/// Loaded machines start etcd slowly; a start that needs longer than this failed.
const READY: Duration = Duration::from_mins(1);

/// A server being put together.
pub struct Builder<'a> {
    version: Version,
    tls: Option<&'a Certs>,
    restore: Option<PathBuf>,
    data: Option<TempDir>,
    args: Vec<OsString>,
}

/// A running server, killed when this value goes.
pub struct Etcd {
    version: Version,
    child: Child,
    port: u16,
    /// `--cacert … --cert … --key …`, or nothing.
    connection: Vec<OsString>,
    tls: bool,
    data: Option<TempDir>,
}

impl<'a> Builder<'a> {
    /// Serve clients over mutual TLS.
    pub fn tls(mut self, certs: &'a Certs) -> Self {
        self.tls = Some(certs);
        self
    }

    /// Start with the content of a snapshot.
    pub fn restore(mut self, snapshot: impl Into<PathBuf>) -> Self {
        self.restore = Some(snapshot.into());
        self
    }

    /// Start on the data directory that [`Etcd::stop`] left.
    pub fn data(mut self, dir: TempDir) -> Self {
        self.data = Some(dir);
        self
    }

    /// A further option of etcd's.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Starts it and waits until it answers.
    pub fn start(mut self) -> Etcd {
        let mut why = String::new();
        // Between choosing a free port and etcd's listening on it, another process may take it.
        for _ in 0..3 {
            match self.try_start(READY) {
                Ok(etcd) => return etcd,
                Err(e) => why = e,
            }
        }
        panic!("etcd did not start: {why}");
    }

    /// Starts it, or says why it does not.
    pub fn start_once(mut self) -> Result<Etcd, String> {
        self.try_start(Duration::from_secs(12))
    }

    fn try_start(&mut self, patience: Duration) -> Result<Etcd, String> {
        let (mut etcd, metrics) = self.spawn()?;
        let start = Instant::now();
        loop {
            if healthy(metrics) {
                return Ok(etcd);
            }
            let ended = etcd.child.try_wait().map_err(|e| e.to_string())?;
            if ended.is_some() || start.elapsed() > patience {
                let log = etcd.data.as_ref().map(|d| d.path().join("log"));
                let log = log.and_then(|l| fs::read_to_string(l).ok()).unwrap_or_default();
                let state = ended.map_or("not ready in time".to_owned(), |s| s.to_string());
                // The next attempt starts on the same data.
                etcd.kill();
                self.data = etcd.data.take();
                return Err(format!("{state}; its log:\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it and kills it after a while, ready or not. Hands out what it wrote.
    pub fn start_and_kill(mut self, after: Duration) -> TempDir {
        let (etcd, _) = self.spawn().unwrap();
        std::thread::sleep(after);
        etcd.killed()
    }

    /// Starts it. Also returns the port that tells its health.
    fn spawn(&mut self) -> Result<(Etcd, u16), String> {
        let [client, peer, metrics] = free_ports();
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let client_url = format!("{scheme}://127.0.0.1:{client}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        let data = match self.data.take() {
            Some(data) => data,
            None => tempfile::tempdir().map_err(|e| e.to_string())?,
        };
        let data_dir = data.path().join("etcd");
        if let Some(snapshot) = self.restore.take_if(|_| !data_dir.exists()) {
            restore(self.version, &snapshot, &data_dir, &peer_url);
        }
        let log = data.path().join("log");
        let log_file = File::create(&log).map_err(|e| e.to_string())?;
        let mut command = Command::new(tools::program(self.version, "etcd"));
        command
            .env_clear()
            .arg("--name=default")
            .arg(format!("--data-dir={}", data_dir.display()))
            .arg(format!("--listen-client-urls={client_url}"))
            .arg(format!("--advertise-client-urls={client_url}"))
            .arg(format!("--listen-peer-urls={peer_url}"))
            .arg(format!("--initial-advertise-peer-urls={peer_url}"))
            .arg(format!("--initial-cluster=default={peer_url}"))
            .arg(format!("--listen-metrics-urls=http://127.0.0.1:{metrics}"))
            .args(["--logger=zap", "--log-level=error"])
            .args(&self.args);
        if self.version == Version::V35 {
            command.arg("--unsafe-no-fsync");
        }
        let mut connection = Vec::new();
        if let Some(certs) = self.tls {
            command
                .arg("--client-cert-auth")
                .arg("--trusted-ca-file")
                .arg(&certs.ca)
                .arg("--cert-file")
                .arg(&certs.server.cert)
                .arg("--key-file")
                .arg(&certs.server.key);
            connection = connection_args(&certs.ca, &certs.client.cert, &certs.client.key);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .spawn()
            .map_err(|e| e.to_string())?;
        let etcd = Etcd {
            version: self.version,
            child,
            port: client,
            connection,
            tls: self.tls.is_some(),
            data: Some(data),
        };
        Ok((etcd, metrics))
    }
}

impl Etcd {
    pub fn builder<'a>(version: Version) -> Builder<'a> {
        Builder { version, tls: None, restore: None, data: None, args: Vec::new() }
    }

    /// A plain server with nothing in it.
    pub fn plain(version: Version) -> Self {
        Self::builder(version).start()
    }

    /// A plain server with the content of a snapshot.
    pub fn restored(version: Version, snapshot: &Path) -> Self {
        Self::builder(version).restore(snapshot).start()
    }

    /// `127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.endpoint())
    }

    /// `--endpoints …` and, over TLS, the certificates: the same for etcdctl and for atrest.
    pub fn args(&self) -> Vec<OsString> {
        let mut args = vec!["--endpoints".into(), self.endpoint().into()];
        args.extend(self.connection.iter().cloned());
        args
    }

    /// Runs this version's etcdctl against the server; its failure is the test's.
    #[track_caller]
    pub fn ctl(&self, args: &[&str]) -> Vec<u8> {
        let done = self.try_ctl(args, b"");
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "etcdctl {args:?}: {stderr}");
        done.stdout
    }

    /// Runs this version's etcdctl against the server.
    pub fn try_ctl(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut command = Command::new(tools::program(self.version, "etcdctl"));
        command.env_clear().env("ETCDCTL_API", "3").args(self.args()).args(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcdctl starts");
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Writes one value, byte for byte.
    #[track_caller]
    pub fn put(&self, key: &str, value: &[u8]) {
        // An empty value is no input to etcdctl, but an argument.
        let words = ["put", "--", key, ""];
        let words = if value.is_empty() { &words[..] } else { &words[..3] };
        let done = self.try_ctl(words, value);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Writes many values of printable ASCII, without spaces or a quote in front, in few requests.
    #[track_caller]
    pub fn put_many(&self, entries: impl IntoIterator<Item = (String, String)>) {
        // etcd takes 128 operations and 1.5 MiB in one request.
        let (most, most_bytes) = (100, 1 << 20);
        let mut batch = (String::new(), 0);
        let send = |(text, count): (String, usize)| {
            if count > 0 {
                // No conditions, then what to do, and nothing otherwise.
                let done = self.try_ctl(&["txn"], format!("\n{text}\n\n").as_bytes());
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            }
        };
        for (key, value) in entries {
            if batch.1 == most || batch.0.len() + value.len() > most_bytes {
                send(std::mem::take(&mut batch));
            }
            batch.0.extend(["put ", &key, " ", &value, "\n"]);
            batch.1 += 1;
        }
        send(batch);
    }

    /// The value of a key, byte for byte.
    #[track_caller]
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let out = self.ctl(&["get", "--print-value-only", "--", key]);
        // etcdctl ends a value that it found with one newline.
        out.strip_suffix(b"\n").map(<[u8]>::to_vec)
    }

    /// Saves a snapshot.
    #[track_caller]
    pub fn snapshot(&self, path: &Path) {
        self.ctl(&["snapshot", "save", path.to_str().unwrap()]);
    }

    /// The directory that holds `member/`.
    pub fn data_dir(&self) -> PathBuf {
        self.data.as_ref().expect("the server was not stopped").path().join("etcd")
    }

    /// Ends the server in good order and hands out what it wrote: `etcd/member/…` in that folder.
    pub fn stop(mut self) -> TempDir {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap();
        self.data.take().expect("stopped once")
    }

    /// Ends the server without warning and hands out what it wrote, as [`Etcd::stop`].
    pub fn killed(mut self) -> TempDir {
        self.kill();
        self.data.take().expect("stopped once")
    }

    /// Its process, for who outlives this value's borrow.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the process a signal, such as `-STOP`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Three members of one cluster.
    pub fn cluster(version: Version, certs: &Certs) -> [Self; 3] {
        let ports: [u16; 3] = free_ports();
        let cluster: Vec<_> =
            (0..3).map(|i| format!("m{i}=http://127.0.0.1:{}", ports[i])).collect();
        let cluster = &cluster.join(",");
        std::thread::scope(|scope| {
            // A member answers once a second one is there.
            let members = [0, 1, 2].map(|i| {
                let peer = format!("http://127.0.0.1:{}", ports[i]);
                scope.spawn(move || {
                    Self::builder(version)
                        .tls(certs)
                        .arg(format!("--name=m{i}"))
                        .arg(format!("--listen-peer-urls={peer}"))
                        .arg(format!("--initial-advertise-peer-urls={peer}"))
                        .arg(format!("--initial-cluster={cluster}"))
                        .start()
                })
            });
            members.map(|member| member.join().unwrap())
        })
    }

    /// Ends the server without warning; what it wrote stays until this value goes.
    pub fn kill(&mut self) {
        // It may have ended by itself already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `--cacert CA --cert CERT --key KEY`.
pub fn connection_args(ca: &Path, cert: &Path, key: &Path) -> Vec<OsString> {
    vec!["--cacert".into(), ca.into(), "--cert".into(), cert.into(), "--key".into(), key.into()]
}

/// Runs this version's etcdctl or etcdutl without a server.
#[track_caller]
pub fn run(version: Version, program: &str, args: &[&str]) -> Vec<u8> {
    let done = Command::new(tools::program(version, program))
        .env_clear()
        .env("ETCDCTL_API", "3")
        .args(args)
        .output()
        .expect("the tool starts");
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {args:?}: {stderr}");
    done.stdout
}

fn restore(version: Version, snapshot: &Path, data_dir: &Path, peer_url: &str) {
    let program = match version {
        Version::V34 => "etcdctl",
        Version::V35 => "etcdutl",
    };
    let data_dir = format!("--data-dir={}", data_dir.display());
    let cluster = format!("--initial-cluster=default={peer_url}");
    let advertise = format!("--initial-advertise-peer-urls={peer_url}");
    let snapshot = snapshot.to_str().unwrap();
    let args = ["snapshot", "restore", snapshot, "--name=default", &data_dir, &cluster, &advertise];
    run(version, program, &args);
}

/// Ports that nobody listened on a moment ago.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    std::array::from_fn(|i| listeners[i].local_addr().unwrap().port())
}

fn healthy(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let wait = Duration::from_secs(2);
    let Ok(mut stream) = TcpStream::connect_timeout(&address, wait) else { return false };
    let asked = stream
        .set_read_timeout(Some(wait))
        // Without space it serves all the same.
        .and_then(|()| stream.write_all(b"GET /health?exclude=NOSPACE HTTP/1.0\r\n\r\n"));
    let mut answer = String::new();
    asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok()
        && answer.contains(r#""health":"true""#)
}
