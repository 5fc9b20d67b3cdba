//! What this machine shows of an API server that runs on it: the configuration that it was started
//! with, and when. Only what it was started with counts, not what a file says now.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use crate::hex::hex;
use crate::profile::{Process, running};

/// What speaks against it that the API server has loaded a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It encrypts nothing.
    #[error("runs without --encryption-provider-config")]
    None,
    /// It was started with another file.
    #[error("uses {0}, which is not byte for byte the configuration that was given")]
    Other(String),
    /// It read the file before it became what it is.
    #[error("was started before {0} was changed, and does not reload it by itself")]
    Older(String),
}

/// An API server on this machine that may not have loaded a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubtful {
    /// Its process.
    pub pid: u32,
    /// Why.
    pub doubt: Doubt,
}

/// The API servers of this machine that use one of `endpoints` and speak against a configuration
/// with the digest `sha256` (hexadecimal). What cannot be read says nothing.
#[must_use]
pub fn doubtful(proc: &Path, endpoints: &[String], sha256: &str) -> Vec<Doubtful> {
    let servers = running(proc, "kube-apiserver");
    let of_ours = |p: &&Process| uses(p, endpoints);
    let doubt = |p: &Process| Some(Doubtful { pid: p.pid, doubt: doubt(proc, p, sha256)? });
    servers.iter().filter(of_ours).filter_map(doubt).collect()
}

fn uses(process: &Process, endpoints: &[String]) -> bool {
    let flags = process.flags("kube-apiserver");
    let bare = |url: &str| {
        let host = url.split_once("://").map_or(url, |(_, host)| host);
        host.trim_end_matches('/').to_ascii_lowercase()
    };
    flags
        .list("etcd-servers")
        .iter()
        .any(|server| endpoints.iter().any(|e| bare(e) == bare(server)))
}

fn doubt(proc: &Path, process: &Process, sha256: &str) -> Option<Doubt> {
    let flags = process.flags("kube-apiserver");
    let Some(file) = flags.last("encryption-provider-config") else { return Some(Doubt::None) };
    let dir = proc.join(process.pid.to_string());
    // In a container of its own, the file is where the process sees it.
    let seen = dir.join("root").join(file.trim_start_matches('/'));
    let bytes = fs::read(&seen).ok()?;
    if hex(&Sha256::digest(bytes)) != sha256 {
        return Some(Doubt::Other(file.to_owned()));
    }
    if flags.on("encryption-provider-config-automatic-reload") == Some(true) {
        return None;
    }
    let changed = fs::metadata(&seen).and_then(|m| m.modified()).ok()?;
    (started(proc, &dir)? < changed).then(|| Doubt::Older(file.to_owned()))
}

/// When a process began (proc(5): `starttime` in ticks after `btime`).
fn started(proc: &Path, dir: &Path) -> Option<SystemTime> {
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let boot = fs::read_to_string(proc.join("stat")).ok()?;
    let boot: u64 = boot.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    let second = rustix::param::clock_ticks_per_second();
    // `btime` is rounded: what began within the second after a change is not called older.
    Some(UNIX_EPOCH + Duration::from_secs(boot + ticks / second + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `/proc` with one process, which began 1,000 s after the machine.
    fn machine(words: &[&str]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = proc.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("stat", "cpu 1 2 3\nbtime 1700000000\n");
        put("7/cmdline", &words.join("\0"));
        let ticks = 1000 * rustix::param::clock_ticks_per_second();
        let before = vec!["0"; 19].join(" ");
        put("7/stat", &format!("7 (kube) apiserver) {before} {ticks} 0\n"));
        put("7/root/etc/enc.yaml", "the file");
        proc
    }

    fn changed(proc: &tempfile::TempDir, second: u64) {
        let file = fs::File::options().append(true).open(proc.path().join("7/root/etc/enc.yaml"));
        file.unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(second)).unwrap();
    }

    #[test]
    fn what_it_was_started_with_is_compared() {
        let of = |words: &[&str], second: u64, text: &str| {
            let proc = machine(words);
            changed(&proc, second);
            let endpoints = ["https://127.0.0.1:2379".to_owned()];
            doubtful(proc.path(), &endpoints, &hex(&Sha256::digest(text)))
        };
        let etcd = "--etcd-servers=https://10.0.0.1:2379,https://127.0.0.1:2379/";
        let file = "--encryption-provider-config=/etc/enc.yaml";
        let reload = "--encryption-provider-config-automatic-reload=true";
        let only = |doubt: Doubt| vec![Doubtful { pid: 7, doubt }];
        let whole = ["/usr/bin/kube-apiserver", etcd, file];
        assert_eq!(of(&whole, 1_700_000_900, "the file"), []);
        assert_eq!(
            of(&whole, 1_700_001_100, "the file"),
            only(Doubt::Older("/etc/enc.yaml".into()))
        );
        let reloads = [&whole[..], &[reload]].concat();
        assert_eq!(of(&reloads, 1_700_001_100, "the file"), []);
        assert_eq!(of(&reloads, 1_700_000_900, "ours"), only(Doubt::Other("/etc/enc.yaml".into())));
        assert_eq!(of(&whole[..2], 1_700_000_900, "ours"), only(Doubt::None));
        // Another cluster's, and what cannot be read, say nothing.
        assert_eq!(of(&["kube-apiserver", "--etcd-servers=https://10.0.0.1:2379"], 0, "ours"), []);
        let gone = ["kube-apiserver", etcd, "--encryption-provider-config=/nowhere"];
        assert_eq!(of(&gone, 0, "ours"), []);
    }
}
