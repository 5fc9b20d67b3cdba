//! The exporter follows a real etcd, and a real Prometheus reads it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::certs::Certs;
use crate::support::etcd::free_ports;
use crate::support::proxy::Proxy;
use crate::support::{Etcd, Version, bin, corpus};

/// Nothing that is waited for takes this long.
const PATIENCE: Duration = Duration::from_mins(1);

struct Exporter {
    child: Child,
    address: String,
}

impl Exporter {
    fn start(words: &str, args: &[String]) -> Self {
        let mut child =
            bin().words("exporter --listen 127.0.0.1:0").words(words).args(args).spawn();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().expect("it says where it listens").unwrap();
        let address = line.rsplit("://").next().unwrap().to_owned();
        assert!(line.contains("listening on"), "{line}");
        // The pipe must not fill.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    fn get(&self, path: &str, accept: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn metrics(&self) -> String {
        let (status, body) = self.get("/metrics", "text/plain");
        assert_eq!(status, 200);
        body
    }

    /// Scrapes until `wanted` is a line of it.
    #[track_caller]
    fn wait_for(&self, wanted: &str) {
        let since = Instant::now();
        loop {
            let text = self.metrics();
            if text.lines().any(|line| line == wanted) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "no `{wanted}` in\n{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn endpoint(etcd: &str) -> Vec<String> {
    vec!["--endpoints".to_owned(), etcd.to_owned()]
}

const SEALED: &[u8] = b"k8s:enc:secretbox:v1:secret-key-1:0123456789012345678901234567890123456789";

#[test]
fn counts_follow_what_is_written() {
    let etcd = Etcd::restored(Version::V35, &corpus::db("p1b-partial-migration"));
    let config = corpus::private_config("p1-secretbox");
    let words = format!("--encryption-config {}", config.display());
    let exporter = Exporter::start(&words, &endpoint(&etcd.url()));
    let group = |provider: &str, version: &str, key: &str, status: &str| {
        format!(
            "atrest_entries{{resource=\"secrets\",provider=\"{provider}\",version=\"{version}\",key=\"{key}\",status=\"{status}\"}}"
        )
    };
    let plain = group("identity", "", "", "stale");
    let sealed = group("secretbox", "v1", "secret-key-1", "current");
    exporter.wait_for("atrest_watch_up 1");
    exporter.wait_for(&format!("{plain} 24"));
    exporter.wait_for(&format!("{sealed} 18"));
    assert_eq!(exporter.get("/readyz", "*/*").0, 200);

    etcd.put("/registry/secrets/default/new", b"k8s\0 in the clear");
    exporter.wait_for(&format!("{plain} 25"));
    etcd.put("/registry/secrets/default/new", SEALED);
    exporter.wait_for(&format!("{plain} 24"));
    exporter.wait_for(&format!("{sealed} 19"));
    etcd.ctl(&["del", "/registry/secrets/default/new"]);
    exporter.wait_for(&format!("{sealed} 18"));
    exporter.wait_for("atrest_entries_plaintext 24");
    exporter.wait_for("atrest_changes_total 3");
    // Not a Secret, so not asked for.
    etcd.put("/registry/configmaps/default/new", b"k8s\0");
    etcd.put("/registry/secrets/default/last", SEALED);
    exporter.wait_for(&format!("{sealed} 19"));
    assert!(!exporter.metrics().contains("configmaps"));
}

#[test]
fn a_lost_connection_is_seen_and_mended() {
    let etcd = Etcd::restored(Version::V35, &corpus::db("p1b-partial-migration"));
    let proxy = Proxy::new(&etcd.endpoint());
    let exporter = Exporter::start("", &endpoint(&format!("http://{}", proxy.endpoint)));
    exporter.wait_for("atrest_watch_up 1");
    etcd.put("/registry/secrets/default/new", b"k8s\0");
    exporter.wait_for("atrest_entries_plaintext 25");
    proxy.drop_connections();
    // Whatever it missed meanwhile, the scan after it finds.
    etcd.put("/registry/secrets/default/newer", b"k8s\0");
    exporter.wait_for("atrest_entries_plaintext 26");
    exporter.wait_for("atrest_watch_up 1");
}

#[test]
fn an_etcd_that_is_not_there_is_an_error_at_the_start() {
    let [port] = free_ports();
    let done = bin()
        .words(&format!("exporter --listen 127.0.0.1:0 --endpoints http://127.0.0.1:{port}"))
        .run()
        .fails(1);
    assert!(done.stderr.contains("cannot connect"), "{done}");
}

fn promtool(arguments: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed by scripts/setup");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}{}\n{input}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn promtool_has_nothing_to_complain_of() {
    let etcd = Etcd::restored(Version::V35, &corpus::db("p6-mixed"));
    let exporter = Exporter::start("--all-resources", &endpoint(&etcd.url()));
    exporter.wait_for("atrest_watch_up 1");
    promtool(&["check", "metrics"], &exporter.metrics());
    let (_, open) = exporter.get("/metrics", "application/openmetrics-text");
    assert!(open.ends_with("# EOF\n"), "{open}");
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/rules.yaml");
    promtool(&["check", "rules", rules.to_str().unwrap()], "");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/rules-test.yaml");
    promtool(&["test", "rules", tests.to_str().unwrap()], "");
}

/// Over HTTPS, with a client certificate, as a stranger's Prometheus does it.
#[test]
fn a_real_prometheus_scrapes_it() {
    let certs = Certs::new();
    let etcd = Etcd::restored(Version::V35, &corpus::db("p1b-partial-migration"));
    let words = format!(
        "--tls-cert {} --tls-key {} --client-ca {}",
        certs.server.cert.display(),
        certs.server.key.display(),
        certs.ca.display()
    );
    let exporter = Exporter::start(&words, &endpoint(&etcd.url()));
    let dir = tempfile::tempdir().unwrap();
    let [port] = free_ports();
    let job = |name: &str, pair: &crate::support::certs::Pair| {
        format!(
            "  - job_name: {name}\n    scheme: https\n    scrape_interval: 1s\n    scrape_timeout: 1s\n    \
             tls_config: {{ca_file: {}, cert_file: {}, key_file: {}}}\n    \
             static_configs: [{{targets: ['{}']}}]\n",
            certs.ca.display(),
            pair.cert.display(),
            pair.key.display(),
            exporter.address
        )
    };
    let config = dir.path().join("prometheus.yml");
    let jobs = [job("ours", &certs.client), job("stranger", &certs.stranger)].concat();
    std::fs::write(&config, format!("scrape_configs:\n{jobs}")).unwrap();
    let mut prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus is installed by scripts/setup");
    let since = Instant::now();
    let seen = loop {
        let answer =
            query(port, "{job=~\"ours|stranger\",__name__=~\"up|atrest_entries_plaintext\"}");
        let value = |name: &str, job: &str| {
            let results = answer.as_ref()?["data"]["result"].as_array()?.clone();
            let found = results
                .iter()
                .find(|r| r["metric"]["__name__"] == name && r["metric"]["job"] == job)?;
            found["value"][1].as_str().map(str::to_owned)
        };
        let state = (value("atrest_entries_plaintext", "ours"), value("up", "stranger"));
        if state == (Some("24".to_owned()), Some("0".to_owned())) || since.elapsed() > PATIENCE {
            break state;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let _ = prometheus.kill();
    let _ = prometheus.wait();
    assert_eq!(seen, (Some("24".to_owned()), Some("0".to_owned())));
}

fn query(port: u16, promql: &str) -> Option<serde_json::Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let escaped = promql.bytes().fold(String::new(), |mut text, b| {
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!("%{b:02X}"));
        text
    });
    write!(stream, "GET /api/v1/query?query={escaped} HTTP/1.0\r\nHost: x\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
}

/// The operator's form of the rules is the same rules.
#[test]
fn the_rules_for_the_operator_are_the_rules() {
    let file = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path);
        std::fs::read_to_string(path).unwrap()
    };
    let plain = file("prometheus/rules.yaml");
    let groups = &plain[plain.find("groups:").unwrap()..];
    let wrapped = file("kubernetes/monitoring/rules.yaml");
    let spec = wrapped.split_once("spec:\n").unwrap().1;
    let mut unwrapped = spec.replace("\n  ", "\n");
    unwrapped.drain(..2);
    assert_eq!(unwrapped, groups);
}
