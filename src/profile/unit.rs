//! systemd units: what a service is started with (systemd.service(5), systemd.exec(5)).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::host::{Host, ProfileError};
use super::shell;

/// Where units lie, the first that has one counts (systemd.unit(5)).
const PLACES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// How a service is started. No `Debug`: it may hold passwords.
#[derive(Default)]
pub struct Unit {
    /// The command, and the file that says it.
    pub command: Vec<String>,
    /// Where the command stands.
    pub path: Option<PathBuf>,
    /// Its name, without what it ends in.
    name: String,
    /// Variables, each with the file that sets it.
    pub environment: BTreeMap<String, (String, PathBuf)>,
}

impl Unit {
    /// Reads a unit with its drop-ins and environment files; empty where there is none.
    ///
    /// # Errors
    /// When a file of it is there and cannot be read.
    pub fn read(host: &Host, name: &str) -> Result<Self, ProfileError> {
        let plain = name.rsplit_once('.').map_or(name, |(plain, _)| plain).to_owned();
        let mut unit = Self { name: plain, ..Self::default() };
        for place in PLACES {
            let path = host.at(format!("{place}/{name}"));
            if let Some(text) = host.read_if_there(&path)? {
                unit.add(host, &text, &path)?;
                break;
            }
        }
        let mut drop_ins: BTreeMap<String, PathBuf> = BTreeMap::new();
        for place in PLACES.iter().rev() {
            for path in host.files(&host.at(format!("{place}/{name}.d")), &["conf"])? {
                let key = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                drop_ins.insert(key, path);
            }
        }
        for path in drop_ins.values() {
            if let Some(text) = host.read_if_there(path)? {
                unit.add(host, &text, path)?;
            }
        }
        Ok(unit)
    }

    fn add(&mut self, host: &Host, text: &str, path: &Path) -> Result<(), ProfileError> {
        let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
        let mut section = "";
        for line in joined.lines().map(str::trim) {
            if line.starts_with(['#', ';']) {
                continue;
            }
            if line.starts_with('[') {
                section = line;
                continue;
            }
            let Some((name, value)) = line.split_once('=').filter(|_| section == "[Service]")
            else {
                continue;
            };
            let value = value.trim();
            match name.trim() {
                "ExecStart" if value.is_empty() => self.command.clear(),
                "ExecStart" => {
                    let value = value.trim_start_matches(['@', '-', ':', '+', '!']);
                    self.command = shell::words(value);
                    self.path = Some(path.to_owned());
                }
                "Environment" => {
                    for word in shell::words(value) {
                        self.set(&word, path);
                    }
                }
                "EnvironmentFile" => self.file(host, value)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn set(&mut self, assignment: &str, path: &Path) {
        if let Some((name, value)) = assignment.split_once('=') {
            self.environment.insert(name.to_owned(), (value.to_owned(), path.to_owned()));
        }
    }

    fn file(&mut self, host: &Host, value: &str) -> Result<(), ProfileError> {
        let path = host.at(value.trim_start_matches('-').replace("%N", &self.name));
        let Some(text) = host.read_if_there(&path)? else { return Ok(()) };
        self.assignments(&text, &path);
        Ok(())
    }

    /// Reads `NAME=VALUE` lines.
    pub fn assignments(&mut self, text: &str, path: &Path) {
        for line in text.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';'])) {
            let line = line.strip_prefix("export ").unwrap_or(line);
            if let Some((name, value)) = line.split_once('=') {
                let value = shell::words(value).concat();
                self.environment.insert(name.trim().to_owned(), (value, path.to_owned()));
            }
        }
    }
}
