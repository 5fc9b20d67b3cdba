//! From a path to the block devices under it (`proc_pid_mountinfo(5)`; Linux
//! `Documentation/ABI/testing/sysfs-block`: `dev`, `slaves`, `dm/uuid`).

use std::path::{Path, PathBuf};

use crate::profile::Host;

/// What lies under a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Under {
    /// An encrypted device, by its dm name.
    Encrypted(String),
    /// Devices of which none is encrypted.
    Plain(String),
    /// Memory, which ends with the machine.
    Memory(String),
    /// It cannot be told.
    Unknown(String),
}

/// A line of mountinfo.
struct Mount {
    device: String,
    at: PathBuf,
    kind: String,
    source: String,
}

fn mounts(host: &Host) -> Option<Vec<Mount>> {
    let own = host.at("/proc/self/mountinfo");
    let of_init = host.at("/proc/1/mountinfo");
    let text = std::fs::read_to_string(own).or_else(|_| std::fs::read_to_string(of_init)).ok()?;
    let unescape =
        |text: &str| text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    let line = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(2);
        let device = left.next()?.to_owned();
        let at = PathBuf::from(unescape(left.nth(1)?));
        let mut right = right.split(' ');
        let (kind, source) = (right.next()?.to_owned(), unescape(right.next()?));
        Some(Mount { device, at, kind, source })
    };
    Some(text.lines().filter_map(line).collect())
}

/// What lies under a path of the machine, which need not exist itself.
pub(super) fn under(host: &Host, path: &Path) -> Under {
    let Some(mounts) = mounts(host) else {
        return Under::Unknown("mounts are not known: there is no /proc".to_owned());
    };
    // Symlinks lead elsewhere.
    let mut real = path.to_owned();
    while !real.exists() && real.pop() {}
    let real = host.own(&real.canonicalize().unwrap_or(real));
    let deepest = mounts.iter().filter(|m| real.starts_with(&m.at));
    // Of several mounts at one place, the last is seen.
    let Some(mount) = deepest.max_by_key(|m| m.at.components().count()) else {
        return Under::Unknown(format!("no mount holds {}", real.display()));
    };
    match mount.kind.as_str() {
        "tmpfs" | "ramfs" => return Under::Memory(mount.kind.clone()),
        "zfs" => {
            let dataset = &mount.source;
            return Under::Unknown(format!(
                "zfs dataset {dataset}: zfs get encryption {dataset} says"
            ));
        }
        "overlay" | "nfs" | "nfs4" | "cifs" | "fuse" | "9p" | "virtiofs" => {
            return Under::Unknown(format!("{} on {}", mount.kind, mount.source));
        }
        _ => {}
    }
    device(host, &mount.device, &mount.source)
}

/// A block device by `major:minor`; file systems over several devices have an anonymous one, and
/// name a device.
pub(super) fn device(host: &Host, number: &str, name: &str) -> Under {
    let by_number = host.at(format!("/sys/dev/block/{number}"));
    let by_name = Path::new(name).file_name().map(|n| host.at("/sys/class/block").join(n));
    let mapped = || {
        // /dev/mapper/NAME is one of dm-N, which says its name.
        let wanted = name.strip_prefix("/dev/mapper/")?;
        let entries = std::fs::read_dir(host.at("/sys/class/block")).ok()?;
        entries
            .flatten()
            .map(|e| e.path())
            .find(|p| std::fs::read_to_string(p.join("dm/name")).is_ok_and(|n| n.trim() == wanted))
    };
    let found = Some(by_number)
        .filter(|p| p.exists())
        .or_else(|| by_name.filter(|p| p.exists()))
        .or_else(mapped);
    let Some(sys) = found else {
        return Under::Unknown(format!("device {number} ({name}) is not in /sys"));
    };
    match encrypted(&sys, 0) {
        Some(uuid) => Under::Encrypted(format!("{name}: {uuid}")),
        None => Under::Plain(name.to_owned()),
    }
}

/// The crypt target at or under a device: all that it stands on have to have one.
fn encrypted(sys: &Path, depth: usize) -> Option<String> {
    const DEEPEST: usize = 16;
    if depth > DEEPEST {
        return None;
    }
    if let Ok(uuid) = std::fs::read_to_string(sys.join("dm/uuid"))
        && uuid.starts_with("CRYPT-")
    {
        return Some(uuid.trim().chars().take(40).collect());
    }
    // A partition has its disk above it.
    if sys.join("partition").exists() {
        let disk = sys.canonicalize().ok()?.parent()?.to_owned();
        return encrypted(&disk, depth + 1);
    }
    let slaves: Vec<_> =
        std::fs::read_dir(sys.join("slaves")).ok()?.flatten().map(|e| e.path()).collect();
    let under: Option<Vec<_>> = slaves.iter().map(|s| encrypted(s, depth + 1)).collect();
    under?.into_iter().next()
}
