//! What a step of a rotation changed, and the commands that come next.

use std::fmt::Write as _;
use std::path::Path;

use super::StepName;
use crate::config::Rotated;
use crate::jobs::rotation::Key;

/// What changed and which commands come next.
pub(super) fn next_steps(step: StepName, rotated: &Rotated, out: &Path) -> String {
    let what = Key::new(rotated.provider, rotated.name.as_deref());
    let resources: Vec<_> = rotated
        .entries
        .iter()
        .flat_map(|e| rotated.config.entries[*e].resources.iter().map(String::as_str))
        .collect();
    let out = out.display();
    let mut text = format!("wrote {out} (mode 0600), for {}\n", resources.join(", "));
    let name = rotated.name.as_ref().map_or_else(String::new, |n| format!(" --key-name '{n}'"));
    let provider = format!(" --provider {}", rotated.provider);
    let distribute = "copy it, the same bytes, to every control plane machine, and restart every kube-apiserver\n     (or wait a minute where it runs with --encryption-provider-config-automatic-reload)";
    let _ = match step {
        StepName::Add => writeln!(
            text,
            "{what} can be read, nothing is written with it yet\nnext:\n  \
             1. {distribute}\n  \
             2. atrest config check {out} FILE…     (the files of the other machines: no difference)\n  \
             3. atrest config rotate --step promote{provider}{name} --encryption-config {out} --out NEXT"
        ),
        StepName::Promote => {
            let old = rotated.previous.as_ref();
            let retire = old.map_or_else(String::new, |(provider, name)| {
                let name = name.as_ref().map_or_else(String::new, |n| format!(" --key-name '{n}'"));
                format!(" --provider {provider}{name}")
            });
            writeln!(
                text,
                "{what} writes from now on\nnext:\n  \
                 1. {distribute}\n  \
                 2. atrest migrate --encryption-config {out}            (what would be rewritten)\n  \
                 3. atrest migrate --encryption-config {out} --apply\n  \
                 4. atrest scan --encryption-config {out} --verify --fail-on stale,unreadable\n  \
                 5. atrest config rotate --step retire{retire} --encryption-config {out} --endpoints … --out NEXT"
            )
        }
        StepName::Retire => writeln!(
            text,
            "{what} is gone from the configuration\nnext:\n  \
             1. {distribute}\n  \
             2. keep the file before this one for as long as you keep backups from its time:\n     \
             without it they cannot be read\n  \
             3. atrest residue --encryption-config {out} --endpoints …  (what history still holds)"
        ),
    };
    text
}
