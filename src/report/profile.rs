//! What `profile` prints.

use std::io::{self, Write};

use serde::Serialize;

use super::table::{Builder, Mark};
use super::{Format, wire};
use crate::profile::{Datastore, Found, Setting};

/// What was found, by profile.
pub struct Report<'a> {
    /// Each with its name.
    pub found: &'a [(&'static str, Found)],
    /// The option that stands for a setting.
    pub option: fn(Setting) -> &'static str,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    profiles: Vec<One<'a>>,
}

#[derive(Serialize)]
struct One<'a> {
    profile: &'static str,
    settings: Vec<Line>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Line {
    /// The option that it stands for; `not examined` for what none stands for.
    option: &'static str,
    value: String,
    from: String,
}

/// An address without what stands before its `@`.
fn without_password(endpoint: &str) -> String {
    match endpoint.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://…@{host}"),
            None => endpoint.to_owned(),
        },
        None => endpoint.to_owned(),
    }
}

fn settings(found: &Found, option: fn(Setting) -> &'static str) -> Vec<Line> {
    let mut all = Vec::new();
    let mut add = |option, value: String, from: &str| {
        all.push(Line { option, value, from: from.to_owned() });
    };
    if let Some(source) = &found.source {
        match &source.value {
            Datastore::Endpoints(endpoints) => {
                let shown: Vec<_> = endpoints.iter().map(|e| without_password(e)).collect();
                add(option(Setting::Endpoints), shown.join(","), &source.from);
            }
            Datastore::DataDir(dir) => {
                add(option(Setting::DataDir), dir.display().to_string(), &source.from);
            }
            Datastore::Kine(path) => {
                add(option(Setting::Kine), path.display().to_string(), &source.from);
            }
            Datastore::Server(url) => add(option(Setting::Kine), url.shown(), &source.from),
        }
    }
    for (setting, path) in [
        (Setting::CaCert, &found.cacert),
        (Setting::Cert, &found.cert),
        (Setting::Key, &found.key),
        (Setting::Config, &found.config),
    ] {
        if let Some(path) = path {
            add(option(setting), path.value.display().to_string(), &path.from);
        }
    }
    if let Some(prefix) = &found.prefix {
        add(option(Setting::Prefix), prefix.value.clone(), &prefix.from);
    }
    for other in &found.overrides {
        let value = format!("{} in {}", other.value.resource, other.value.servers.join(","));
        add("not examined", value, &other.from);
    }
    all
}

impl Report<'_> {
    /// Writes the report.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, format: Format, color: bool, out: &mut dyn Write) -> io::Result<()> {
        if format == Format::Json {
            let one = |(profile, found): &'_ (&'static str, Found)| {
                (*profile, settings(found, self.option))
            };
            let profiles = self
                .found
                .iter()
                .map(|both| {
                    let (profile, settings) = one(both);
                    One { profile, settings, warnings: &both.1.warnings }
                })
                .collect();
            return wire::document(&Document { schema: "atrest.profile/v1", profiles }, out);
        }
        for (i, (profile, found)) in self.found.iter().enumerate() {
            if i > 0 {
                writeln!(out)?;
            }
            writeln!(out, "profile {profile}\n")?;
            let mut rows = Builder::new(color, &["OPTION", "VALUE", "FROM"]);
            for s in settings(found, self.option) {
                let mark = if s.option.starts_with('-') { Mark::Plain } else { Mark::Bad };
                rows.row(vec![s.option.to_owned(), s.value, s.from], mark);
            }
            write!(out, "{rows}")?;
        }
        Ok(())
    }
}
