//! Files, and the devices under them.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::device::{self, Under};
use super::{Act, Adder, Check, Layer, Options, Outcome, Program, manifests};
use crate::profile::{Datastore, Distribution};

/// Where people put snapshots.
const BACKUPS: [&str; 8] = [
    "/var/lib/etcd-backup",
    "/var/backups",
    "/backup",
    "/backups",
    "/root",
    "/home/core/assets/backup",
    "/var/lib/rancher/k3s/server/db/snapshots",
    "/var/lib/rancher/rke2/server/db/snapshots",
];

pub(super) fn check(options: &Options<'_>, etcd: Option<&Program>, checks: &mut Vec<Check>) {
    let mut add = Adder { layer: Layer::Filesystem, checks };
    let data = data_dir(options, etcd);
    match &data {
        Some(dir) => {
            encrypted(options, &mut add, "data-encrypted", &[], dir);
            mode(options, &mut add, "data-dir-mode", &["1.1.11"], std::slice::from_ref(dir), 0o077);
            let wal = etcd.and_then(|e| e.file(options, "wal-dir"));
            let wal = wal.unwrap_or_else(|| dir.join("member/wal"));
            if wal.exists() {
                encrypted(options, &mut add, "wal-encrypted", &[], &wal);
            }
            room(options, &mut add, dir);
        }
        None => add.add(
            "data-encrypted",
            &[],
            Outcome::Unknown,
            vec!["no data directory was found on this machine".to_owned()],
            "run on the machine that etcd runs on",
        ),
    }
    swap(options, &mut add);
    if let Some(config) = options.found.config.as_ref().map(|c| &c.value) {
        encrypted(options, &mut add, "keys-encrypted", &[], config);
        mode(options, &mut add, "encryption-config-mode", &[], std::slice::from_ref(config), 0o077);
    }
    for (id, program, cis) in [
        ("apiserver-manifest-mode", "kube-apiserver", &["1.1.1", "1.1.2"][..]),
        ("etcd-manifest-mode", "etcd", &["1.1.7", "1.1.8"][..]),
    ] {
        let files = manifests(options, program);
        if !files.is_empty() {
            mode(options, &mut add, id, cis, &files, 0o077);
        }
    }
    let mut keys: Vec<PathBuf> = options.found.key.iter().map(|k| k.value.clone()).collect();
    if let Some(etcd) = etcd {
        keys.extend(["key-file", "peer-key-file"].iter().filter_map(|f| etcd.file(options, f)));
    }
    keys.retain(|k| k.exists());
    keys.dedup();
    if !keys.is_empty() {
        mode(options, &mut add, "key-files-mode", &["1.1.21"], &keys, 0o077);
    }
    backups(options, &mut add);
}

fn data_dir(options: &Options<'_>, etcd: Option<&Program>) -> Option<PathBuf> {
    let place = options.found.source.as_ref().and_then(|s| match &s.value {
        Datastore::DataDir(dir) => Some(dir.clone()),
        Datastore::Kine(path) => path.parent().map(Path::to_owned),
        Datastore::Endpoints(_) | Datastore::Server(_) => None,
    });
    let own: &[&str] = match options.distribution {
        Distribution::K3s => &["/var/lib/rancher/k3s/server/db/etcd"],
        Distribution::Rke2 => &["/var/lib/rancher/rke2/server/db/etcd"],
        Distribution::Microshift => &["/var/lib/microshift/etcd"],
        Distribution::K0s => &["/var/lib/k0s/etcd"],
        Distribution::Microk8s => &["/var/snap/microk8s/current/var/kubernetes/backend"],
        _ => &["/var/lib/etcd"],
    };
    let own = own.iter().map(|p| options.host.at(p)).find(|p| p.exists());
    let told = etcd.and_then(|e| e.file(options, "data-dir")).filter(|p| p.exists());
    place.or(told).or(own)
}

fn encrypted(
    options: &Options<'_>,
    add: &mut Adder<'_>,
    id: &'static str,
    cis: &'static [&'static str],
    path: &Path,
) {
    let at = path.display();
    let (result, evidence) = match device::under(options.host, path) {
        Under::Encrypted(what) => (Outcome::Pass, format!("{at} is on {what}")),
        Under::Memory(what) => (Outcome::Pass, format!("{at} is in memory ({what})")),
        Under::Plain(what) => (Outcome::Fail, format!("{at} is on {what}, which is not encrypted")),
        Under::Unknown(why) => (Outcome::Unknown, format!("{at}: {why}")),
    };
    let remedy = "move it to a LUKS device (cryptsetup luksFormat, luksOpen, mkfs, mount)";
    add.add(id, cis, result, vec![evidence], remedy);
}

/// Bits that nobody but the owner should have.
fn mode(
    options: &Options<'_>,
    add: &mut Adder<'_>,
    id: &'static str,
    cis: &'static [&'static str],
    paths: &[PathBuf],
    forbidden: u32,
) {
    let (mut result, mut evidence, mut remedy) = (Outcome::Pass, Vec::new(), Vec::new());
    for path in paths {
        match std::fs::metadata(path) {
            Ok(meta) => {
                let mode = meta.mode() & 0o7777;
                let at = path.display();
                evidence.push(format!(
                    "{at} has mode {mode:04o}, owner {}:{}",
                    meta.uid(),
                    meta.gid()
                ));
                if mode & forbidden != 0 {
                    result = result.max(Outcome::Fail);
                    let own = options.host.own(path);
                    let right = if meta.is_dir() { "700" } else { "600" };
                    remedy.push(format!("chmod {right} {}", own.display()));
                }
            }
            Err(e) => {
                result = result.max(Outcome::Unknown);
                evidence.push(format!("{}: {e}", path.display()));
            }
        }
    }
    add.add(id, cis, result, evidence, remedy.join("; "));
}

/// What a migration needs: the backup, and the database as it may grow.
fn room(options: &Options<'_>, add: &mut Adder<'_>, data: &Path) {
    let database = [data.join("member/snap/db"), data.join("state.db")];
    let Some(size) = database.iter().find_map(|p| p.metadata().ok()).map(|m| m.len()) else {
        return;
    };
    let (result, evidence) = match rustix::fs::statvfs(data) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let enough = free >= size.saturating_mul(2);
            let text = format!("{free} bytes are free, the database has {size}");
            (if enough { Outcome::Pass } else { Outcome::Warn }, text)
        }
        Err(e) => (Outcome::Unknown, e.to_string()),
    };
    let elsewhere = (options.command)(Act::BackupElsewhere);
    let remedy =
        format!("make room for twice the database, or save the backup elsewhere: {elsewhere}");
    add.add("free-disk", &[], result, vec![evidence], remedy);
}

fn swap(options: &Options<'_>, add: &mut Adder<'_>) {
    let Ok(text) = std::fs::read_to_string(options.host.at("/proc/swaps")) else {
        let why = vec!["there is no /proc/swaps".to_owned()];
        add.add("swap-encrypted", &[], Outcome::Unknown, why, "swapon --show");
        return;
    };
    let (mut result, mut evidence, mut off) = (Outcome::Pass, Vec::new(), Vec::new());
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace();
        let (Some(name), Some(kind)) = (words.next(), words.next()) else { continue };
        let found = if kind == "file" {
            device::under(options.host, &options.host.at(name))
        } else if name.contains("zram") {
            Under::Memory(name.to_owned())
        } else {
            device::device(options.host, "-", name)
        };
        let (one, text) = match found {
            Under::Encrypted(what) => (Outcome::Pass, format!("{name} is on {what}")),
            Under::Memory(what) => (Outcome::Pass, format!("{name} is in memory ({what})")),
            Under::Plain(what) => (Outcome::Fail, format!("{name} is on {what}, not encrypted")),
            Under::Unknown(why) => (Outcome::Unknown, format!("{name}: {why}")),
        };
        if one > Outcome::Unknown {
            off.push(format!("swapoff {name}"));
        }
        result = result.max(one);
        evidence.push(text);
    }
    if evidence.is_empty() {
        evidence.push("no swap is in use".to_owned());
    }
    let look = "swapon --show says what swap lies on".to_owned();
    let remedy = if off.is_empty() { look } else { off.join("; ") };
    add.add("swap-encrypted", &[], result, evidence, remedy);
}

/// Snapshots on this machine: on what they lie, and whether the keys lie beside them.
fn backups(options: &Options<'_>, add: &mut Adder<'_>) {
    const MOST: usize = 20;
    let keys = options.found.config.as_ref().and_then(|c| c.value.parent().map(Path::to_owned));
    let mut dirs: Vec<PathBuf> = BACKUPS.iter().map(|p| options.host.at(p)).collect();
    dirs.extend(keys.clone());
    let mut found = Vec::new();
    for dir in dirs {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        found.extend(entries.flatten().map(|e| e.path()).filter(|p| is_database(p)));
    }
    found.sort();
    found.dedup();
    if found.is_empty() {
        let none = vec!["no snapshot was found in the usual places".to_owned()];
        add.add("backups-encrypted", &[], Outcome::Pass, none, "");
        return;
    }
    let (mut result, mut evidence) = (Outcome::Pass, Vec::new());
    for path in found.iter().take(MOST) {
        let at = path.display();
        let (one, text) = match device::under(options.host, path) {
            Under::Encrypted(what) => (Outcome::Pass, format!("{at} is on {what}")),
            Under::Memory(what) => (Outcome::Pass, format!("{at} is in memory ({what})")),
            Under::Plain(what) => (Outcome::Warn, format!("{at} is on {what}, not encrypted")),
            Under::Unknown(why) => (Outcome::Unknown, format!("{at}: {why}")),
        };
        result = result.max(one);
        evidence.push(text);
    }
    let scan = (options.command)(Act::ScanSnapshots);
    let scan = format!("{scan} says what each holds; delete or encrypt those that hold plaintext");
    add.add("backups-encrypted", &[], result, evidence, scan);
    if let Some(dir) = keys {
        let beside: Vec<_> = found
            .iter()
            .filter(|p| p.starts_with(&dir))
            .map(|p| format!("{} lies beside the keys in {}", p.display(), dir.display()))
            .collect();
        let result = if beside.is_empty() { Outcome::Pass } else { Outcome::Fail };
        let none = || vec![format!("no snapshot lies in {}", dir.display())];
        let evidence = if beside.is_empty() { none() } else { beside };
        add.add(
            "keys-apart-from-backups",
            &[],
            result,
            evidence,
            "keep them on different machines",
        );
    }
}

/// A bbolt database by its first page (etcd-io/bbolt `page.go`: the magic number).
fn is_database(path: &Path) -> bool {
    use std::io::Read as _;
    let mut head = [0; 20];
    let read = std::fs::File::open(path).and_then(|mut f| {
        if f.metadata()?.is_file() {
            f.read_exact(&mut head)
        } else {
            Err(std::io::Error::other(""))
        }
    });
    read.is_ok() && head[16..20] == 0xED0C_DAED_u32.to_le_bytes()
}
