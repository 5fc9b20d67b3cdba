//! How results and messages come.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::{Group, Shared};
use crate::report::Format;

/// How the program talks.
#[derive(Clone, Debug, Args)]
pub struct Output {
    /// Results and errors only
    #[arg(short, long, help_heading = "Output")]
    quiet: bool,

    /// No progress bar
    #[arg(long, help_heading = "Output")]
    no_progress: bool,

    /// When to colour
    #[arg(long, value_name = "WHEN", default_value = "auto", help_heading = "Output")]
    color: ColorWhen,
}

impl Group for Output {
    fn put(&self, shared: &mut Shared) {
        shared.quiet = self.quiet;
        shared.no_progress = self.no_progress;
        shared.color = self.color;
    }
}

/// How a report is written, of commands that know no other forms.
#[derive(Clone, Copy, Debug, Args)]
pub struct TableOrJson {
    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = formats(&[Format::Table, Format::Json]), default_value = "table", help_heading = "Output")]
    pub write_out: Format,
}

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Reads `-w` of a command that writes these formats. etcdctl's word for the form for people is
/// understood, too.
#[must_use]
pub fn formats(takes: &'static [Format]) -> impl TypedValueParser<Value = Format> {
    let values = takes.iter().map(|format| {
        let value = PossibleValue::new(format.as_str());
        match format {
            Format::Table => value.alias("simple"),
            Format::Text => value.alias("table"),
            _ => value,
        }
    });
    let default = takes.first().copied().unwrap_or(Format::Table);
    PossibleValuesParser::new(values).map(move |word: String| {
        takes.iter().copied().find(|f| f.as_str() == word).unwrap_or(default)
    })
}
