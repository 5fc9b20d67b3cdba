//! What to do where a distribution's files do not say what is needed.

use std::io;
use std::path::Path;

use super::Failure;
use crate::profile::{ProfileError, Setting};

/// The option that tells what a profile did not find.
#[must_use]
pub fn option(setting: Setting) -> &'static str {
    match setting {
        Setting::Manifest => "--manifest",
        Setting::Endpoints => "--endpoints",
        Setting::DataDir => "--data-dir",
        Setting::Kine => "--kine",
        Setting::CaCert => "--cacert",
        Setting::Cert => "--cert",
        Setting::Key => "--key",
        Setting::Prefix => "--prefix",
        Setting::Config => "--encryption-config",
    }
}

/// In words for a person, with what to do about it; `manifest` is the one that the user named.
#[must_use]
pub fn failure(e: &ProfileError, manifest: Option<&Path>) -> Failure {
    let hint = match e {
        ProfileError::Unreadable { cause, .. }
            if cause.kind() == io::ErrorKind::PermissionDenied =>
        {
            "the files of the control plane belong to root: run as root".to_owned()
        }
        ProfileError::Unreadable { path, .. } if Some(path.as_path()) == manifest => {
            "check the path of --manifest".to_owned()
        }
        ProfileError::Unreadable { setting: Some(setting), .. } => {
            let option = option(*setting);
            format!("run on a control-plane node, or name another file with {option}")
        }
        ProfileError::Unreadable { .. } => {
            "run on a control-plane node, or name the source and its certificates by options"
                .to_owned()
        }
        ProfileError::Malformed { .. } => {
            "check the file, or name the source with --endpoints, --cacert, --cert and --key, and the configuration with --encryption-config"
                .to_owned()
        }
        ProfileError::Volume { setting, .. } => {
            format!("copy it out and name it with {}", option(*setting))
        }
        ProfileError::NoDatastore(_) => {
            "run on a server node, or name the source with --kine, --data-dir or --endpoints"
                .to_owned()
        }
        ProfileError::External(_) => {
            "kine serves it as an etcd: start one beside it and give its --endpoints".to_owned()
        }
    };
    let failure = Failure::new(e.to_string());
    let failure = match std::error::Error::source(e) {
        Some(source) => failure.because(source),
        None => failure,
    };
    failure.hint(hint)
}
