//! `--encryption-config FILE` → configurations. The only place that opens those files.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::cli::failure::Failure;
use crate::cli::stdin;
use crate::config::{self, LoadError, Loaded};

/// Largest file that is read. Archives of `OpenShift` backups have a few megabytes.
const MAX_FILE: u64 = 512 << 20;

/// The bytes of a configuration file.
pub struct Content {
    /// The path as given, or `stdin`.
    pub origin: String,
    /// Raw bytes; they hold keys.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Who else can read the file, if anybody, as a sentence.
    pub exposed: Option<String>,
}

/// Reads one file; `-` is stdin.
///
/// # Errors
/// When it cannot be read, naming it.
pub fn read(path: &Path) -> Result<Content, Failure> {
    // A precaution: where the system refuses it, the job still goes on.
    let _ = crate::secret::harden();
    let mut bytes = Zeroizing::new(Vec::new());
    if path == Path::new("-") {
        stdin::claim()?
            .take(MAX_FILE)
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::new("cannot read stdin").because(&e))?;
        return Ok(Content { origin: "stdin".to_owned(), bytes, exposed: None });
    }
    let origin = path.display().to_string();
    let cannot = |e: &io::Error| {
        let failure = Failure::new(format!("cannot read {origin}")).because(e);
        if e.kind() == io::ErrorKind::PermissionDenied {
            return failure.hint("the file belongs to root on most machines: run as root");
        }
        failure
    };
    // A shell's `<(…)` is a pipe that somebody writes to; opening any other may wait for ever.
    let of_shell = path.starts_with("/dev/fd") || path.starts_with("/proc");
    let is_fifo = std::fs::metadata(path).is_ok_and(|m| FileTypeExt::is_fifo(&m.file_type()));
    if is_fifo && !of_shell {
        return Err(Failure::new(format!("cannot read {origin}: it is a pipe, not a file"))
            .hint("give `-` and pipe the configuration in"));
    }
    let file = File::open(path).map_err(|e| cannot(&e))?;
    let metadata = file.metadata().map_err(|e| cannot(&e))?;
    if metadata.is_dir() {
        return Err(Failure::new(format!("cannot read {origin}: it is a directory")));
    }
    if metadata.len() > MAX_FILE {
        return Err(Failure::new(format!("{origin} is too large for a configuration")));
    }
    let exposed = metadata.is_file().then(|| exposure(&origin, metadata.mode())).flatten();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(|e| cannot(&e))?;
    Ok(Content { origin, bytes, exposed })
}

/// Keys in a file that others can read are no secret.
fn exposure(origin: &str, mode: u32) -> Option<String> {
    let who = match (mode & 0o040 != 0, mode & 0o004 != 0) {
        (false, false) => return None,
        (true, false) => "its group",
        (_, true) => "every user of this machine",
    };
    Some(format!(
        "{origin} holds keys and can be read by {who} (mode {:04o}): chmod 600",
        mode & 0o7777
    ))
}

/// The configurations in one file, errors in words.
///
/// # Errors
/// When there is none, or a wrong one: every error is a cause.
pub fn load(content: &Content) -> Result<Vec<Loaded>, Failure> {
    config::load(&content.bytes, &content.origin).map_err(|e| failure(&e))
}

/// A configuration that cannot be used, with everything that is wrong about it.
pub fn failure(error: &LoadError) -> Failure {
    let mut failure = Failure::new(error.to_string());
    match error {
        LoadError::Invalid { errors, .. } => {
            failure.causes = errors.errors.iter().map(ToString::to_string).collect();
        }
        LoadError::Missing { .. } => {
            failure.hint = Some(
                "a configuration is needed, or what holds one: a Secret or ConfigMap, RKE's cluster.rkestate, Talos's machine configuration, a tar archive"
                    .to_owned(),
            );
        }
        LoadError::Archive { .. } | LoadError::StateFile { .. } | LoadError::Elsewhere { .. } => {}
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable_by_others_earns_a_warning() {
        assert_eq!(exposure("f", 0o100_600), None);
        assert_eq!(exposure("f", 0o100_400), None);
        assert!(exposure("f", 0o100_640).unwrap().contains("its group (mode 0640)"));
        assert!(exposure("f", 0o100_644).unwrap().contains("every user"));
    }
}
