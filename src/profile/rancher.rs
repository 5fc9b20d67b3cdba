//! The settings of k3s and RKE2, in the order in which they count: command line, configuration
//! files, variables (k3s-io/k3s `pkg/configfilearg/parser.go`: what a file says stands before the
//! arguments, and variables fill in what neither says).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::flags::Flags;
use super::found::Sourced;
use super::host::{Host, ProfileError};
use super::process::{Process, running};
use super::server::{ManifestError, parse};
use super::unit::Unit;
use crate::yaml_tree::Value;

/// k3s or RKE2.
pub(super) struct Kind {
    /// The program and its places.
    pub name: &'static str,
    /// Its variables.
    variables: &'static str,
    /// Its services.
    units: &'static [&'static str],
}

pub(super) const K3S: Kind =
    Kind { name: "k3s", variables: "K3S_", units: &["k3s.service", "k3s-server.service"] };
pub(super) const RKE2: Kind =
    Kind { name: "rke2", variables: "RKE2_", units: &["rke2-server.service", "rke2.service"] };

/// Flags that are lists.
const LISTS: [&str; 2] = ["kube-apiserver-arg", "etcd-arg"];
/// Settings that matter here, and have variables.
const SETTINGS: [&str; 6] = [
    "data-dir",
    "datastore-endpoint",
    "datastore-cafile",
    "datastore-certfile",
    "datastore-keyfile",
    "secrets-encryption",
];

/// Settings by name. No `Debug`: an endpoint may hold a password.
#[derive(Default)]
pub(super) struct Settings {
    values: BTreeMap<String, Sourced<Vec<String>>>,
    /// Where a running server and its files differ.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads everything that a server of this kind is told.
    ///
    /// # Errors
    /// When a file is there and cannot be read or understood: it may say where the objects are.
    pub fn read(host: &Host, kind: &Kind) -> Result<Self, ProfileError> {
        let mut settings = Self::default();
        let mut unit = Unit::default();
        for name in kind.units {
            unit = Unit::read(host, name)?;
            if !unit.command.is_empty() {
                break;
            }
        }
        let own = host.at(format!("/etc/rancher/{0}/{0}.env", kind.name));
        for path in [
            own,
            host.at(format!("/etc/default/{}", kind.name)),
            host.at(format!("/etc/default/{}-server", kind.name)),
            host.at(format!("/etc/sysconfig/{}", kind.name)),
        ] {
            if let Some(text) = host.read_if_there(&path)? {
                unit.assignments(&text, &path);
            }
        }
        let process = server(host, kind);
        let command = Command::of(&unit, process.as_ref());
        let variable = |name: &str| {
            let name = format!("{}{name}", kind.variables);
            let running = process.as_ref().and_then(|p| {
                let value = p.environment.get(&name)?;
                Some(Sourced::new(value.clone(), format!("process {} ({name})", p.pid)))
            });
            let set = unit.environment.get(&name);
            running.or_else(|| {
                set.map(|(v, path)| Sourced::new(v.clone(), format!("{} ({name})", path.display())))
            })
        };
        for name in SETTINGS {
            let variable = variable(&name.to_uppercase().replace('-', "_"));
            if let Some(value) = variable.filter(|v| !v.value.is_empty()) {
                settings.put(name, Sourced::new(vec![value.value], value.from), false);
            }
        }
        // The variable counts more than the flag here (`findConfigFileFlag`).
        let file = variable("CONFIG_FILE").map(|v| v.value);
        let file = file.or_else(|| command.flags.last("config").map(str::to_owned));
        let file = file.or_else(|| command.flags.last("c").map(str::to_owned));
        let file = file.unwrap_or_else(|| format!("/etc/rancher/{}/config.yaml", kind.name));
        settings.files(host, &host.at(file))?;
        for name in SETTINGS.iter().chain(&LISTS) {
            settings.compare(name, &command, process.as_ref());
        }
        Ok(settings)
    }

    /// The configuration file, and those beside it in the order of their names.
    fn files(&mut self, host: &Host, path: &Path) -> Result<(), ProfileError> {
        let mut files = vec![path.to_owned()];
        let beside = PathBuf::from(format!("{}.d", path.display()));
        files.extend(host.files(&beside, &["yaml", "yml"])?);
        for path in files {
            let Some(text) = host.read_if_there(&path)? else { continue };
            let malformed = |error: ManifestError| ProfileError::Malformed {
                path: path.clone(),
                error,
                given: false,
            };
            let documents = parse(&text).map_err(malformed)?;
            let Some(Value::Map(fields)) = documents.first().map(|d| &d.value) else { continue };
            for field in fields {
                let name = field.name.as_str();
                let (name, append) = match name.strip_suffix('+') {
                    Some(name) => (name, true),
                    None => (name, false),
                };
                let one = field.node.text().map(str::to_owned).or(match &field.node.value {
                    Value::Bool(b) => Some(b.to_string()),
                    _ => None,
                });
                let many = field.node.items().iter().filter_map(|n| n.text().map(str::to_owned));
                let values: Vec<String> = one.into_iter().chain(many).collect();
                self.put(name, Sourced::new(values, path.display().to_string()), append);
            }
        }
        Ok(())
    }

    /// What the command line says, over what the files do.
    fn compare(&mut self, name: &str, command: &Command, process: Option<&Process>) {
        let given: Vec<String> = if LISTS.contains(&name) {
            command.flags.all(name).into_iter().map(str::to_owned).collect()
        } else {
            command.flags.last(name).map(str::to_owned).into_iter().collect()
        };
        if given.is_empty() {
            return;
        }
        if let (Some(before), Some(process)) = (self.values.get(name), process)
            && before.value != given
        {
            self.warnings.push(format!(
                "{name}: {} says otherwise than the running server (process {}), which counts",
                before.from, process.pid
            ));
        }
        self.put(name, Sourced::new(given, command.from.clone()), false);
    }

    fn put(&mut self, name: &str, value: Sourced<Vec<String>>, append: bool) {
        match self.values.get_mut(name) {
            Some(before) if append => {
                before.value.extend(value.value);
                before.from = format!("{} and {}", before.from, value.from);
            }
            _ => {
                self.values.insert(name.to_owned(), value);
            }
        }
    }

    /// A setting, if it is set to something.
    pub fn get(&self, name: &str) -> Option<Sourced<String>> {
        let set = self.values.get(name)?;
        let value = set.value.last().filter(|v| !v.is_empty())?;
        Some(Sourced::new(value.clone(), set.from.clone()))
    }

    /// `NAME=VALUE` arguments for a component, as flags.
    pub fn arguments(&self, name: &str) -> (Flags, String) {
        let mut flags = Flags::default();
        let Some(set) = self.values.get(name) else { return (flags, String::new()) };
        for argument in &set.value {
            let argument = argument.trim_start_matches('-');
            let (name, value) = argument.split_once('=').unwrap_or((argument, "true"));
            flags.push(name, value);
        }
        (flags, format!("{} ({name})", set.from))
    }
}

/// The server's own command line.
struct Command {
    flags: Flags,
    from: String,
}

impl Command {
    /// Of the process, where it still shows it (k3s hides it); else of its unit.
    fn of(unit: &Unit, process: Option<&Process>) -> Self {
        let after = |words: &[String]| {
            let at = words.iter().position(|w| w == "server")?;
            let flags = Flags::of(&words[at + 1..]);
            (!flags.is_empty()).then_some(flags)
        };
        if let Some((flags, process)) = process.and_then(|p| Some((after(&p.words)?, p))) {
            return Self { flags, from: format!("process {}", process.pid) };
        }
        let from = unit.path.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
        Self { flags: after(&unit.command).unwrap_or_default(), from }
    }
}

/// The running server.
fn server(host: &Host, kind: &Kind) -> Option<Process> {
    let is_server =
        |p: &Process| p.words.iter().flat_map(|w| w.split_whitespace()).nth(1) == Some("server");
    running(&host.at("/proc"), kind.name).into_iter().find(is_server)
}
