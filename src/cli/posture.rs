//! `atrest posture`.

use std::io::Write as _;

use jiff::Timestamp;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::{Ctx, ending, open, ui};
use crate::jobs::posture::{self as job, Options, Outcome};
use crate::posture::FINDINGS;
use crate::report::Format;
use crate::report::posture::Report;
use crate::resource::Selector;
use crate::source::SourceInfo;

/// Options of `posture`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One row for each Secret after the summary
    #[arg(long)]
    pub list: bool,

    /// Exit with 3 when there is one of these findings; `any` stands for all of them
    #[arg(long, value_name = "FINDING[,…]", value_delimiter = ',', value_parser = finding)]
    pub fail_on: Vec<String>,

    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    prefix: args::Prefix,

    #[command(flatten)]
    revision: args::Revision,

    #[command(flatten)]
    reading: args::Decrypting,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json, Format::Csv, Format::Html]), default_value = "table", help_heading = "Output")]
    pub write_out: Format,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.source, &self.prefix, &self.revision, &self.reading, &self.output])
    }
}

/// A finding's word.
fn finding(text: &str) -> Result<String, String> {
    if text == "any" || FINDINGS.iter().any(|(id, ..)| *id == text) {
        return Ok(text.to_owned());
    }
    let words: Vec<&str> = FINDINGS.iter().map(|(id, ..)| *id).collect();
    Err(format!("there is no such finding; there are any, {}", words.join(", ")))
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let objects = super::inside::objects(ctx)?;
    let mut source = open::source(ctx)?;
    let info = source.info();
    let scope = open::scope(ctx);
    let options = Options {
        ranges: scope.ranges(&[Selector::All]),
        scope,
        revision: ctx.global.revision,
        now: Timestamp::now(),
    };
    let outcome = job::run(source.as_mut(), &objects, &options, &mut Told::new(&ctx.ui))?;
    ending::end(ctx, [&outcome.visit], || report(ctx, args, &info, &outcome))
}

fn report(ctx: &Ctx, args: &Args, info: &SourceInfo, outcome: &Outcome) -> Result<Exit, Failure> {
    if outcome.entries == 0 {
        return Err(Failure::new("there is nothing of a cluster in the source")
            .hint("atrest scan --all-resources shows what it holds"));
    }
    for line in outcome.causes.lines("unreadable:") {
        ctx.ui.warn(&line);
    }
    if !outcome.unread.is_empty() {
        ctx.ui.warn("what unreadable entries would have said is unknown");
    }
    let report = Report { source: info, outcome, list: args.list };
    ui::print(|out| {
        report.write(args.write_out, ctx.ui.color, out)?;
        out.flush()
    })?;
    let found = |id: &str| args.fail_on.iter().any(|word| word == "any" || word == id);
    if outcome.posture.findings.iter().any(|f| found(f.id)) {
        return Ok(Exit::Found);
    }
    Ok(if outcome.unread.is_empty() { Exit::Ok } else { Exit::Partial })
}
