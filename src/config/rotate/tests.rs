use super::*;
use crate::envelope::Provider as P;

const A: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const B: &str = "IAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn block() -> String {
    format!(
        "# ticket 4711: owned by the platform team
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources:
      - secrets   # the reason for this file
      - configmaps
    providers:
      # keys, the writing one first
      - aescbc:
          keys:
            # made in 2023
            - name: old
              secret: {A}   # from the vault

            # made in 2024
            - name: other
              secret: {B}
      # plaintext from before
      - identity: {{}}   # keep
  # everything else stays as it is
  - resources: ['*.*']
    providers: [{{identity: {{}}}}]
# end
"
    )
}

fn fresh(name: &str, provider: Option<P>) -> Step {
    Step::Add { provider, name: name.to_owned(), secret: KeyMaterial::new((9..41).collect()) }
}

fn which(name: &str) -> Which {
    Which { provider: None, name: Some(name.to_owned()) }
}

fn next(text: &str, step: &Step) -> Rotated {
    rotate(text, step, &[]).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn keys(rotated: &Rotated, resource: &str) -> Vec<String> {
    let serving = rotated.config.serving(resource);
    serving
        .providers
        .iter()
        .map(|s| {
            let names: Vec<_> = s.provider.names().collect();
            format!("{}:{}", s.provider.provider(), names.join("+"))
        })
        .collect()
}

fn refused(text: &str, step: &Step, part: &str) {
    let message = rotate(text, step, &[]).err().unwrap().to_string();
    assert!(message.contains(part), "{message}");
}

/// The comments of a text, sorted.
fn comments(text: &str) -> Vec<String> {
    let mut all: Vec<_> =
        text.lines().filter_map(|l| l.find('#').map(|i| l[i..].trim().to_owned())).collect();
    all.sort();
    all
}

#[test]
fn the_three_steps_in_block_style() {
    let text = block();
    let added = next(&text, &fresh("new", None));
    assert_eq!(keys(&added, "secrets"), ["aescbc:old+other+new", "identity:"]);
    assert_eq!((added.provider, added.name.as_deref()), (P::AesCbc, Some("new")));
    assert_eq!(added.entries, [0]);
    // Nothing but the two new lines changed.
    let new_lines: Vec<_> = added.text.lines().filter(|l| !text.lines().any(|o| o == *l)).collect();
    assert_eq!(new_lines.len(), 2, "{new_lines:?}");
    assert_eq!(new_lines[0], "            - name: \"new\"");
    let kept: Vec<_> = added.text.lines().filter(|l| !new_lines.contains(l)).collect();
    assert_eq!(kept, text.lines().collect::<Vec<_>>());

    let promoted = next(&added.text, &Step::Promote(Which::default()));
    assert_eq!(keys(&promoted, "secrets"), ["aescbc:new+old+other", "identity:"]);
    assert_eq!(promoted.previous, Some((P::AesCbc, Some("old".to_owned()))));
    assert_eq!(comments(&promoted.text), comments(&text));
    // A comment stays with what it is about.
    let lines: Vec<_> = promoted.text.lines().collect();
    let at = lines.iter().position(|l| l.contains("made in 2023")).unwrap();
    assert!(lines[at + 1].contains("name: old"));
    assert!(lines[at + 2].ends_with("# from the vault"));

    let retired = next(&promoted.text, &Step::Retire(which("old")));
    assert_eq!(keys(&retired, "secrets"), ["aescbc:new+other", "identity:"]);
    assert!(!retired.text.contains(A) && retired.text.contains(B));
    let mut expected = comments(&text);
    expected.retain(|c| c != "# from the vault");
    assert_eq!(comments(&retired.text), expected);
    let last = next(&retired.text, &Step::Retire(Which::default()));
    assert_eq!(keys(&last, "secrets"), ["aescbc:new", "identity:"]);
    // The other entry never changed.
    assert_eq!(keys(&last, "pods"), ["identity:"]);
    assert!(last.text.ends_with("  # everything else stays as it is\n  - resources: ['*.*']\n    providers: [{identity: {}}]\n# end\n"));
}

#[test]
fn json_stays_json() {
    let compact = format!(
        "{{\"kind\":\"EncryptionConfiguration\",\"apiVersion\":\"apiserver.config.k8s.io/v1\",\"resources\":[{{\"resources\":[\"secrets\"],\"providers\":[{{\"aescbc\":{{\"keys\":[{{\"name\":\"old\",\"secret\":\"{A}\"}}]}}}},{{\"identity\":{{}}}}]}}]}}"
    );
    let added = next(&compact, &fresh("aescbckey-2024-05-01T10:11:12Z", None));
    assert!(!added.text.contains(' ') && !added.text.contains('\n'));
    let promoted = next(&added.text, &Step::Promote(Which::default()));
    assert_eq!(
        keys(&promoted, "secrets"),
        ["aescbc:aescbckey-2024-05-01T10:11:12Z+old", "identity:"]
    );
    let retired = next(&promoted.text, &Step::Retire(Which::default()));
    assert_eq!(keys(&retired, "secrets"), ["aescbc:aescbckey-2024-05-01T10:11:12Z", "identity:"]);
    serde_json::from_str::<serde::de::IgnoredAny>(&retired.text).unwrap();
    let value: serde_json::Value = serde_json::from_str(&compact).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    let mut text = pretty;
    for (step, expected) in [
        (fresh("new", None), "aescbc:old+new"),
        (Step::Promote(Which::default()), "aescbc:new+old"),
        (Step::Retire(Which::default()), "aescbc:new"),
        (fresh("box", Some(P::Secretbox)), "aescbc:new"),
        (Step::Promote(which("box")), "secretbox:box"),
        (Step::Retire(which("new")), "secretbox:box"),
        (Step::Retire(Which { provider: Some(P::Identity), name: None }), "secretbox:box"),
    ] {
        let rotated = next(&text, &step);
        assert_eq!(keys(&rotated, "secrets")[0], expected);
        text = rotated.text.to_string();
    }
}

#[test]
fn providers_change_and_encryption_turns_on_and_off() {
    let text = block();
    let added = next(&text, &fresh("box", Some(P::Secretbox)));
    assert_eq!(keys(&added, "secrets"), ["aescbc:old+other", "secretbox:box", "identity:"]);
    refused(&added.text, &Step::Promote(which("nobody")), "there is no key `nobody`");
    let promoted = next(&added.text, &Step::Promote(which("box")));
    assert_eq!(keys(&promoted, "secrets"), ["secretbox:box", "aescbc:old+other", "identity:"]);
    assert_eq!(comments(&promoted.text), comments(&text));
    let once = next(&promoted.text, &Step::Retire(which("old")));
    let twice = next(&once.text, &Step::Retire(which("other")));
    assert_eq!(keys(&twice, "secrets"), ["secretbox:box", "identity:"]);
    let off = next(&twice.text, &Step::Promote(Which { provider: Some(P::Identity), name: None }));
    assert_eq!(keys(&off, "secrets"), ["identity:", "secretbox:box"]);
    let on = next(&off.text, &Step::Promote(Which::default()));
    assert_eq!(keys(&on, "secrets"), ["secretbox:box", "identity:"]);
    // From nothing but identity.
    let plain = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources:\n  - secrets\n  providers:\n  - identity: {}";
    refused(plain, &fresh("k1", None), "identity comes first");
    let added = next(plain, &fresh("k1", Some(P::AesGcm)));
    assert_eq!(keys(&added, "secrets"), ["identity:", "aesgcm:k1"]);
    assert_eq!(
        keys(&next(&added.text, &Step::Promote(Which::default())), "secrets")[0],
        "aesgcm:k1"
    );
}

#[test]
fn kms_providers_are_promoted_and_retired_by_name() {
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - kms: {name: one, endpoint: 'unix:///a'}\n  # the new one\n  - kms:\n      apiVersion: v2\n      name: two\n      endpoint: unix:///b\n";
    refused(text, &fresh("k", None), "a KMS plugin rotates its keys itself");
    refused(text, &Step::Promote(Which::default()), "not clear which key");
    let promoted = next(text, &Step::Promote(which("two")));
    assert_eq!(keys(&promoted, "secrets"), ["kms:two", "kms:one"]);
    refused(&promoted.text, &Step::Promote(which("two")), "`two` is first already");
    refused(&promoted.text, &Step::Retire(which("two")), "promote its successor first");
    let retired = next(&promoted.text, &Step::Retire(which("one")));
    assert_eq!(keys(&retired, "secrets"), ["kms:two"]);
}

#[test]
fn what_is_not_clear_is_refused() {
    let text = block();
    refused(&text, &fresh("old", None), "there is a key");
    // What would be retired is the key that is not promoted yet; the caller looks at the data.
    assert_eq!(keys(&next(&text, &Step::Retire(Which::default())), "secrets")[0], "aescbc:old");
    refused(&text, &Step::Retire(which("old")), "promote its successor first");
    refused(&text, &Step::Promote(which("old")), "is first already");
    refused("kind: x", &fresh("k", None), "not valid");
    assert!(
        rotate(&text, &fresh("k", None), &["pods".to_owned()])
            .err()
            .unwrap()
            .to_string()
            .contains("`pods` is in no entry")
    );
    // An alias would change in two places.
    let aliased = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers: &p\n  - aescbc: {{keys: [{{name: old, secret: {A}}}]}}\n- resources: [configmaps]\n  providers: *p\n"
    );
    refused(&aliased, &fresh("k", None), "alias");
}

#[test]
fn every_entry_with_the_key_takes_part() {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - secretbox: {{keys: [{{name: old, secret: {A}}}]}}   # one\n  - identity: {{}}\n- resources: [configmaps]\n  providers:\n  - secretbox:\n      keys:\n      -   name: old\n          secret: {A}\n  - identity: {{}}\n- resources: [pods]\n  providers:\n  - identity: {{}}\n"
    );
    let added = next(&text, &fresh("new", None));
    assert_eq!(added.entries, [0, 1]);
    for resource in ["secrets", "configmaps"] {
        assert_eq!(keys(&added, resource)[0], "secretbox:old+new");
    }
    let promoted = next(&added.text, &Step::Promote(which("new")));
    let retired = next(&promoted.text, &Step::Retire(which("old")));
    for resource in ["secrets", "configmaps"] {
        assert_eq!(keys(&promoted, resource)[0], "secretbox:new+old");
        assert_eq!(keys(&retired, resource)[0], "secretbox:new");
    }
    // Restricted to one of them.
    let one = rotate(&text, &fresh("new", None), &["configmaps".to_owned()]).ok().unwrap();
    assert_eq!(keys(&one, "secrets")[0], "secretbox:old");
    assert_eq!(keys(&one, "configmaps")[0], "secretbox:old+new");
}

#[test]
fn line_endings_and_missing_last_newlines_are_kept() {
    let text = block().replace('\n', "\r\n");
    let added = next(&text, &fresh("new", None));
    assert_eq!(added.text.matches('\n').count(), added.text.matches("\r\n").count());
    let promoted = next(&added.text, &Step::Promote(Which::default()));
    assert_eq!(promoted.text.matches('\n').count(), promoted.text.matches("\r\n").count());
    let unended = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- providers:\n  - secretbox:\n      keys:\n      - name: old\n        secret: {A}\n      - name: b\n        secret: |\n          {B}\n  resources: [secrets]"
    );
    let promoted = next(&unended, &Step::Promote(which("b")));
    assert_eq!(keys(&promoted, "secrets")[0], "secretbox:b+old");
    let last = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - secretbox:\n      keys:\n      - name: old\n        secret: {A}"
    );
    let promoted = next(&next(&last, &fresh("new", None)).text, &Step::Promote(Which::default()));
    assert_eq!(keys(&promoted, "secrets")[0], "secretbox:new+old");
}

mod random {
    use std::fmt::Write as _;

    use base64::Engine as _;
    use proptest::prelude::*;

    use super::*;

    /// One entry: provider and number of keys of each element, and whether identity comes last.
    type Shape = Vec<(u8, u8)>;

    /// A configuration in block style with comments and blank lines wherever `noise` says.
    fn document(entries: &[Shape], noise: &[u8], step: usize) -> String {
        let mut noise = noise.iter().copied().cycle();
        let mut comment = 0;
        let mut line = |out: &mut String, indent: usize, text: &str| {
            match noise.next().unwrap_or(9) {
                0 => {
                    comment += 1;
                    let _ = writeln!(out, "{}# above {comment}", " ".repeat(indent));
                }
                1 => {
                    comment += 1;
                    let _ = writeln!(out, "# at the margin {comment}");
                }
                2 => out.push('\n'),
                _ => {}
            }
            let tail = if noise.next() == Some(3) {
                comment += 1;
                format!("   # right {comment}")
            } else {
                String::new()
            };
            let _ = writeln!(out, "{}{text}{tail}", " ".repeat(indent));
        };
        let mut out = String::new();
        line(&mut out, 0, "kind: EncryptionConfiguration");
        line(&mut out, 0, "apiVersion: apiserver.config.k8s.io/v1");
        line(&mut out, 0, "resources:");
        for (e, shape) in entries.iter().enumerate() {
            line(&mut out, step, "- resources:");
            line(&mut out, step + 4, &format!("- r{e}"));
            line(&mut out, step + 2, "providers:");
            for (p, (kind, keys)) in shape.iter().enumerate() {
                let name = ["aescbc", "aesgcm", "secretbox", "identity"][usize::from(*kind % 4)];
                if name == "identity" {
                    line(&mut out, step + 2, "- identity: {}");
                    continue;
                }
                line(&mut out, step + 2, &format!("- {name}:"));
                line(&mut out, step + 6, "keys:");
                for k in 0..=(keys % 3) {
                    let tag = u8::try_from(e * 32 + p * 8).unwrap_or(0) + k;
                    let secret = base64::engine::general_purpose::STANDARD.encode([tag; 32]);
                    line(&mut out, step + 6, &format!("- name: k{p}-{k}"));
                    line(&mut out, step + 8, &format!("secret: {secret}"));
                }
            }
        }
        line(&mut out, 0, "# the end");
        out
    }

    proptest! {
        #![proptest_config(crate::testing::cases(400))]

        #[test]
        fn comments_survive_every_step(
            entries in proptest::collection::vec(
                proptest::collection::vec((0u8..4, 0u8..3), 1..4), 1..3),
            noise in proptest::collection::vec(0u8..10, 1..60),
            step in 0usize..4,
            provider in proptest::option::of(0usize..3),
            name in (0usize..3, 0u8..3),
        ) {
            let text = document(&entries, &noise, step);
            prop_assert!(crate::config::parse(text.as_bytes()).is_ok(), "{}", text);
            let provider = provider.map(|p| [P::AesCbc, P::AesGcm, P::Secretbox][p]);
            let which = Which { provider, name: Some(format!("k{}-{}", name.0, name.1)) };
            let added = match rotate(&text, &fresh("fresh-key", provider), &[]) {
                Ok(rotated) => {
                    prop_assert_eq!(comments(&rotated.text), comments(&text));
                    rotated.text.to_string()
                }
                Err(e) => {
                    prop_assert!(!matches!(e, RotateError::Layout(_)), "{}\n{}", e, text);
                    text.clone()
                }
            };
            for step in [Step::Promote(which.clone()), Step::Retire(which)] {
                match rotate(&added, &step, &[]) {
                    Ok(rotated) if matches!(step, Step::Promote(_)) => {
                        prop_assert_eq!(comments(&rotated.text), comments(&added));
                    }
                    Ok(rotated) => {
                        // Lines go and none comes.
                        let kept = rotated.text.lines().all(|l| added.lines().any(|o| o == l));
                        prop_assert!(kept);
                    }
                    Err(e) => {
                        prop_assert!(!matches!(e, RotateError::Layout(_)), "{}\n{}", e, added);
                    }
                }
            }
        }
    }
}

/// `config new` says over the identity provider what it is for; that stays true.
#[test]
fn our_remark_over_identity_stays_true() {
    use crate::config::generate::{IDENTITY_READS, IDENTITY_WRITES, New, Writer, generate};
    let secret = KeyMaterial::new(vec![7; 32]);
    let writer = Writer::Static { provider: P::Secretbox, name: "first", secret: &secret };
    let text = generate(&New { resources: &["secrets".to_owned()], writer }, false);
    let identity = || Which { provider: Some(P::Identity), name: None };
    let above = |text: &str| {
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let at = lines.iter().position(|l| *l == "- identity: {}").unwrap();
        lines[at - 1].to_owned()
    };
    assert_eq!(above(&text), IDENTITY_READS);
    let off = next(&text, &Step::Promote(identity()));
    assert_eq!(keys(&off, "secrets"), ["identity:", "secretbox:first"]);
    assert_eq!(above(&off.text), IDENTITY_WRITES);
    let on = next(&off.text, &Step::Promote(which("first")));
    assert_eq!(keys(&on, "secrets"), ["secretbox:first", "identity:"]);
    assert_eq!(*on.text, *text);
    let gone = next(&on.text, &Step::Retire(identity()));
    assert!(!gone.text.contains('#'), "{}", *gone.text);
    // What somebody else wrote is theirs.
    let own = text.replace(IDENTITY_READS, "# ask Kim before touching this");
    let off = next(&own, &Step::Promote(identity()));
    assert_eq!(above(&off.text), "# ask Kim before touching this");
}
