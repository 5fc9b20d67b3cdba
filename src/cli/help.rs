//! What help shows where: which options are for `--help` alone, so that `-h` fits a screen; which
//! have a variable; and examples of every command, which a test parses.

use std::fmt::Write as _;

use clap::Command;
use clap::builder::FalseyValueParser;

/// Options that few calls need.
const RARE: [&str; 43] = [
    "all-objects",
    "allow-empty",
    "batch",
    "canary",
    "color",
    "command-timeout",
    "concurrency",
    "confirm-config",
    "context",
    "dial-timeout",
    "fast",
    "gentle",
    "identity",
    "include-misplaced",
    "insecure-skip-tls-verify",
    "insecure-transport",
    "keep-ips",
    "keep-owners",
    "keepalive-time",
    "keepalive-timeout",
    "kms-escrow",
    "kms-exec",
    "kms-timeout",
    "lost",
    "manifest",
    "no-apiserver",
    "no-progress",
    "password",
    "password-file",
    "progress",
    "proxy-namespace",
    "qps",
    "quiet",
    "quota-backend-bytes",
    "root",
    "salvage",
    "show-managed-fields",
    "skip-hash-check",
    "storage-version-migration",
    "token",
    "token-file",
    "try-keys",
    "user",
];

/// Options that scripts set once for many calls. No variable of ours names a source: one that was
/// forgotten would have another cluster called well.
const VARIABLES: [(&str, &str); 6] = [
    ("color", "ATREST_COLOR"),
    ("encryption-config", "ATREST_ENCRYPTION_CONFIG"),
    ("no-progress", "ATREST_NO_PROGRESS"),
    ("prefix", "ATREST_PREFIX"),
    ("proxy-namespace", "ATREST_PROXY_NAMESPACE"),
    ("quiet", "ATREST_QUIET"),
];

/// A command, and what it is for.
type Example = (&'static str, &'static str);

/// By the command's words.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "scan",
        &[
            (
                "atrest scan --endpoints https://10.0.0.5:2379 --cacert ca.crt --cert client.crt --key client.key",
                "How is every Secret of a live etcd stored?",
            ),
            (
                "atrest scan --snapshot backup.db --encryption-config encryption.yaml --verify --fail-on plaintext,stale,unreadable",
                "In a script: decrypt everything, exit 3 where something is not as it should be.",
            ),
            (
                "atrest scan --profile kubeadm --watch --until-done",
                "On a control-plane node: follow a migration to its end.",
            ),
        ],
    ),
    (
        "get",
        &[
            (
                "atrest get --snapshot backup.db --encryption-config encryption.yaml secrets/default/login",
                "One Secret, its data as lengths.",
            ),
            (
                "atrest get --profile k3s --reveal -w json secrets/default/login",
                "With its data, from the cluster on this machine.",
            ),
        ],
    ),
    (
        "decode",
        &[(
            "etcdctl get /registry/secrets/default/login | atrest decode --encryption-config encryption.yaml",
            "What etcdctl printed, as an object.",
        )],
    ),
    (
        "encode",
        &[(
            "atrest encode --encryption-config encryption.yaml login.yaml",
            "The bytes that the API server would store.",
        )],
    ),
    (
        "export",
        &[
            (
                "atrest export --snapshot backup.db --encryption-config encryption.yaml --restore --out restored",
                "What an empty cluster accepts, in order, and a script that applies it.",
            ),
            (
                "atrest export --snapshot backup.db --clean -n team-a --resource secrets --out team-a",
                "The Secrets of one namespace.",
            ),
        ],
    ),
    (
        "restore plan",
        &[(
            "atrest restore plan --snapshot backup.db --all-resources --for 1.34",
            "What would be written, left out and converted, before anything is.",
        )],
    ),
    (
        "diff",
        &[
            (
                "atrest diff snapshot:before.db snapshot:after.db",
                "What changed between two backups.",
            ),
            ("atrest diff snapshot:backup.db etcd:", "Between a backup and the live cluster."),
        ],
    ),
    (
        "rewrite",
        &[(
            "atrest rewrite --snapshot backup.db --encryption-config old.yaml --write-config new.yaml --out sealed.db",
            "The same snapshot, all under the new key.",
        )],
    ),
    (
        "history",
        &[(
            "atrest history --snapshot backup.db secrets/default/login",
            "Every revision that is still held, and how each was stored.",
        )],
    ),
    (
        "keys",
        &[(
            "atrest keys --profile kubeadm",
            "Which keys are still needed, and which may leave the configuration.",
        )],
    ),
    (
        "kms check",
        &[(
            "atrest kms check --encryption-config encryption.yaml",
            "Do the plugins answer, and with which key?",
        )],
    ),
    (
        "kms needs",
        &[(
            "atrest kms needs --profile kubeadm --encryption-config encryption.yaml",
            "What breaks when a key of the KMS is destroyed?",
        )],
    ),
    (
        "kms escrow",
        &[(
            "atrest kms escrow --snapshot backup.db --encryption-config encryption.yaml --to age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq --out escrow.age",
            "Keep what the KMS unwraps, for whoever holds that age identity.",
        )],
    ),
    (
        "migrate",
        &[
            ("atrest migrate --profile kubeadm", "What would be rewritten; writes nothing."),
            ("atrest migrate --profile kubeadm --apply --qps 500", "Back up, rewrite, read back."),
            (
                "atrest migrate --profile kubeadm --via-api --kubeconfig admin.conf --apply",
                "By way of the API server.",
            ),
        ],
    ),
    (
        "rotate",
        &[(
            "atrest rotate --state rotation.json --profile kubeadm --apply",
            "Everything that can be done from here; run it again after each step of yours.",
        )],
    ),
    (
        "backups",
        &[(
            "atrest backups s3://fleet/etcd --encryption-config encryption.yaml -w csv",
            "Every backup of a bucket: readable, plaintext, keys that it needs.",
        )],
    ),
    (
        "residue",
        &[
            ("atrest residue --data-dir /var/lib/etcd", "A stopped member, logs included."),
            (
                "atrest residue --profile kubeadm --every-member --fail-on residue",
                "Every member of the live cluster.",
            ),
        ],
    ),
    (
        "scrub",
        &[
            ("atrest scrub --profile kubeadm", "What would be done; changes nothing."),
            (
                "atrest scrub --profile kubeadm --apply",
                "Compact and defragment, one member after the other.",
            ),
            (
                "atrest scrub --kine state.db --apply",
                "Rewrite k3s's database, while k3s is stopped.",
            ),
        ],
    ),
    (
        "delete-unreadable",
        &[(
            "atrest delete-unreadable --profile kubeadm",
            "Which entries nobody can read, and how each would be deleted.",
        )],
    ),
    (
        "exporter",
        &[("atrest exporter --profile kubeadm --listen 127.0.0.1:9409", "Metrics for Prometheus.")],
    ),
    (
        "posture",
        &[(
            "atrest posture --snapshot backup.db --encryption-config encryption.yaml -w html",
            "A page about every Secret, without any value.",
        )],
    ),
    (
        "serve",
        &[(
            "atrest serve --snapshot backup.db --encryption-config encryption.yaml --kubeconfig look.conf",
            "Then, in another terminal: kubectl --kubeconfig look.conf get secrets -A",
        )],
    ),
    (
        "doctor",
        &[
            ("atrest doctor --fail-on fail", "Is this control-plane node sound? Exit 3 if not."),
            ("atrest doctor --root /mnt/master --profile kubeadm", "The disk of another one."),
        ],
    ),
    (
        "profile",
        &[("atrest profile", "What was found on this machine, and where each value comes from.")],
    ),
    (
        "config check",
        &[(
            "atrest config check encryption.yaml other-master.yaml",
            "Valid by the API server's rules, and the same on both?",
        )],
    ),
    (
        "config explain",
        &[(
            "atrest config explain --encryption-config encryption.yaml secrets",
            "Which provider writes them, and which read them?",
        )],
    ),
    (
        "config new",
        &[(
            "atrest config new --provider secretbox --out encryption.yaml",
            "A new one, mode 0600.",
        )],
    ),
    (
        "config rotate",
        &[(
            "atrest config rotate --step add --key-name key-2 --encryption-config encryption.yaml --out next.yaml",
            "The first step: a key that can be read with.",
        )],
    ),
    ("completion", &[("source <(atrest completion bash)", "For this shell.")]),
    ("man", &[("atrest man --out /usr/local/share/man/man1", "One page for each command.")]),
];

/// The program with all this.
pub fn dressed(program: Command) -> Command {
    program.mut_subcommands(|sub| {
        let name = sub.get_name().to_owned();
        command(sub, &name)
    })
}

fn command(command: Command, path: &str) -> Command {
    let command = command.mut_args(|arg| {
        let Some(long) = arg.get_long().map(str::to_owned) else { return arg };
        let variable = VARIABLES.iter().find(|(name, _)| *name == long);
        let arg = match variable {
            Some((_, variable)) if arg.get_action().takes_values() => {
                arg.env(*variable).hide_env_values(true)
            }
            Some((_, variable)) => {
                arg.env(*variable).hide_env_values(true).value_parser(FalseyValueParser::new())
            }
            None => arg,
        };
        arg.hide_short_help(RARE.contains(&long.as_str()))
    });
    let command = match EXAMPLES.iter().find(|(of, _)| *of == path) {
        Some((_, examples)) => with_examples(command, examples),
        None => command,
    };
    command.mut_subcommands(|sub| {
        let path = format!("{path} {}", sub.get_name());
        self::command(sub, &path)
    })
}

fn with_examples(command: Command, examples: &[Example]) -> Command {
    let mut text = command.get_after_help().map(|t| format!("{t}\n\n")).unwrap_or_default();
    text.push_str("Examples:");
    for (line, meaning) in examples {
        let _ = write!(text, "\n  {meaning}\n    {line}");
    }
    command.after_long_help(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands that do something, and the options of all.
    fn walk(command: &Command, path: &str, leaves: &mut Vec<String>, options: &mut Vec<String>) {
        for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name()).trim().to_owned();
            let longs = sub.get_arguments().filter_map(|a| a.get_long());
            options.extend(longs.map(str::to_owned));
            if sub.has_subcommands() {
                walk(sub, &path, leaves, options);
            } else {
                leaves.push(path);
            }
        }
    }

    /// Every command that does something has an example, each is accepted by the command it is
    /// of, and every name in the lists is an option of some command.
    #[test]
    fn examples_are_commands() {
        let program = crate::cli::command();
        let mut leaves = Vec::new();
        let mut options = Vec::new();
        walk(&program, "", &mut leaves, &mut options);
        for leaf in leaves.iter().filter(|l| *l != "version") {
            assert!(EXAMPLES.iter().any(|(of, _)| of == leaf), "no example of {leaf}");
        }
        for (of, examples) in EXAMPLES {
            for (line, _) in *examples {
                let (_, words) = line.split_once("atrest ").unwrap();
                assert!(words.starts_with(of), "{line}");
                let words = words.trim_end_matches(')').split_whitespace();
                let parsed =
                    program.clone().try_get_matches_from(["atrest"].into_iter().chain(words));
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            }
        }
        let names = RARE.iter().chain(VARIABLES.iter().map(|(name, _)| name));
        for name in names {
            assert!(options.iter().any(|o| o == name), "{name}");
        }
    }
}
