//! Which providers serve a resource, what is worth a warning, and where files differ.

use super::*;

fn corpus(name: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/corpus/config/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn config(text: &str) -> Parsed {
    let header = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
    match parse(format!("{header}{text}").as_bytes()) {
        Ok(parsed) => parsed,
        Err(e) => panic!("{text}\n{:#?}", e.errors),
    }
}

/// `provider/version/names` of each served provider.
fn served(config: &EncryptionConfig, resource: &str) -> Vec<String> {
    config
        .serving(resource)
        .providers
        .iter()
        .map(|s| {
            let names: Vec<_> = s.provider.names().collect();
            format!("{} {} {}", s.path(), s.provider.provider(), names.join("+"))
        })
        .collect()
}

#[test]
fn the_corpus_configurations_parse() {
    for (name, writer) in [
        ("p1-secretbox", "secretbox secret-key-1"),
        ("p2-aescbc", "aescbc cbc-2+cbc-1"),
        ("p2b-aescbc1", "aescbc cbc-1+cbc-2"),
        ("p3-aesgcm", "aesgcm gcm-a+gcm-b"),
        ("p4-kmsv1", "kms vault-v1"),
        ("p5-kmsv2", "kms vault-v2"),
        ("p6-sb2", "secretbox secret-key-2+secret-key-1"),
    ] {
        let Ok(parsed) = parse(&corpus(name)) else { panic!("{name} is refused") };
        assert!(parsed.warnings.is_empty());
        let serving = served(&parsed.config, "secrets");
        assert_eq!(serving[0], format!("resources[0].providers[0] {writer}"), "{name}");
        assert!(parsed.config.serving("secrets").reads_plaintext());
        assert_eq!(parsed.config.serving("pods").is_implied_identity(), name != "p6-sb2");
    }
}

#[test]
fn exact_before_group_before_everything() {
    let parsed = config(
        "resources:
- {resources: [deployments.apps], providers: [{identity: {}}]}
- {resources: [secrets., pods], providers: [{kms: {apiVersion: v2, name: a, endpoint: 'unix:///a'}}]}
- {resources: ['*.apps', '*.'], providers: [{kms: {apiVersion: v2, name: b, endpoint: 'unix:///a'}}]}
- {resources: ['*.*'], providers: [{kms: {apiVersion: v2, name: c, endpoint: 'unix:///a'}}, {identity: {}}]}
",
    );
    let config = &parsed.config;
    let path = |resource| served(config, resource)[0].clone();
    assert_eq!(path("deployments.apps"), "resources[0].providers[0] identity ");
    assert_eq!(path("secrets"), "resources[1].providers[0] kms a");
    assert_eq!(path("daemonsets.apps"), "resources[2].providers[0] kms b");
    assert_eq!(path("configmaps"), "resources[2].providers[0] kms b");
    assert_eq!(path("secrets.example.com"), "resources[3].providers[0] kms c");
    assert_eq!(config.serving("widgets.apps.example.com").rule.unwrap().to_string(), "*.*");
    assert!(!config.serving("configmaps").reads_plaintext());
    assert!(config.serving("leases.coordination.k8s.io").reads_plaintext());
    let selectors: Vec<_> =
        config.group_resources().iter().map(|g| g.selector().to_string()).collect();
    assert_eq!(selectors, ["deployments.apps", "secrets", "pods", "*.apps", "*.", "*.*"]);
}

#[test]
fn a_resource_in_two_entries_gets_both_lists() {
    let parsed = config(
        "resources:
- {resources: [secrets], providers: [{kms: {apiVersion: v2, name: a, endpoint: 'unix:///a'}}]}
- {resources: [configmaps], providers: [{identity: {}}]}
- {resources: [secrets., pods], providers: [{kms: {apiVersion: v2, name: b, endpoint: 'unix:///a'}}, {identity: {}}]}
",
    );
    assert_eq!(
        served(&parsed.config, "secrets"),
        [
            "resources[0].providers[0] kms a",
            "resources[2].providers[0] kms b",
            "resources[2].providers[1] identity "
        ]
    );
    assert!(parsed.config.serving("events").is_implied_identity());
    assert!(parsed.config.serving("events").writes_plaintext());
}

const A: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const B: &str = "IAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Providers for secrets, block style, one provider a line in flow style.
fn secrets(lines: &[&str]) -> Parsed {
    let list = lines.join("\n  - ");
    config(&format!("resources:\n- resources: [secrets]\n  providers:\n  - {list}\n"))
}

fn key(provider: &str, keys: &[(&str, &str)]) -> String {
    let keys: Vec<_> =
        keys.iter().map(|(n, s)| format!("{{name: \"{n}\", secret: \"{s}\"}}")).collect();
    format!("{provider}: {{keys: [{}]}}", keys.join(", "))
}

#[test]
fn what_is_accepted_and_unwise_earns_a_warning() {
    let has = |parsed: &Parsed, path: &str, part: &str| {
        let advice = parsed.advice();
        assert!(
            advice.iter().any(|f| f.path == path && f.message.contains(part)),
            "{path}: {part}\n{advice:#?}"
        );
        assert!(advice.iter().all(|f| f.at.is_some()), "{advice:#?}");
    };
    let sound = secrets(&[&key("secretbox", &[("k", A)]), "identity: {}"]);
    assert_eq!(sound.advice(), []);
    let p0 = "resources[0].providers[0]";
    has(&secrets(&["identity: {}", &key("secretbox", &[("k", A)])]), p0, "identity comes first");
    has(&secrets(&[&key("secretbox", &[("k", A)])]), "resources[0].providers", "no identity");
    has(
        &secrets(&[&key("aescbc", &[("k", A)]), "identity: {}"]),
        "resources[0].providers[0].aescbc",
        "does not notice",
    );
    has(
        &secrets(&[&key("aesgcm", &[("k", A)]), "identity: {}"]),
        "resources[0].providers[0].aesgcm",
        "200,000 writes",
    );
    has(
        &secrets(&["kms: {name: a, endpoint: 'unix:rel'}", "identity: {}"]),
        "resources[0].providers[0].kms",
        "KMSv1",
    );
    has(
        &secrets(&["kms: {name: a, endpoint: 'unix:rel'}", "identity: {}"]),
        "resources[0].providers[0].kms.endpoint",
        "never connects",
    );
    let second = "resources[0].providers[0].secretbox.keys[1]";
    let pair = |one: (&str, &str), two: (&str, &str)| {
        secrets(&[&key("secretbox", &[one, two]), "identity: {}"])
    };
    has(&pair(("a", A), ("a", B)), &format!("{second}.name"), "with another secret");
    has(&pair(("a", A), ("a", A)), &format!("{second}.name"), "twice with the same secret");
    has(&pair(("a", A), ("b:c", B)), &format!("{second}.name"), "has a colon");
    has(&pair(("a", A), ("a:b", B)), &format!("{second}.name"), "begins with the key name `a`");
    has(&pair(("a:b", B), ("a", A)), &format!("{second}.name"), "begins with the key name `a`");
    has(
        &pair(("a", A), ("b", A)),
        &format!("{second}.secret"),
        "is the secret of secretbox key `a`",
    );
    has(&pair(("a", A), ("b ", B)), &format!("{second}.name"), "space");
    has(
        &secrets(&[&key("aesgcm", &[("1", "AAAAAAAAAAAAAAAAAAAAAA==")]), "identity: {}"]),
        "resources[0].providers[0].aesgcm.keys[0].secret",
        "OpenShift",
    );
    has(
        &secrets(&[&key("aescbc", &[("k", "c2VjcmV0IGlzIHNlY3VyZQ==")]), "identity: {}"]),
        "resources[0].providers[0].aescbc.keys[0].secret",
        "readable text",
    );
    let others = config(
        "resources:\n- {resources: [configmaps, deployments], providers: [{identity: {}}]}\n- {resources: [configmaps], providers: [{identity: {}}]}\n",
    );
    has(&others, "resources", "secrets are in no entry");
    has(&others, "resources[0].resources[1]", "did you mean `deployments.apps`");
    has(&others, "resources[1].resources[0]", "also in resources[0]");
    let Ok(legacy) = parse(
        b"apiVersion: v1\nkind: EncryptionConfig\nresources: [{resources: [secrets], providers: [{identity: {}}]}]\n",
    ) else {
        panic!("the legacy kind is refused")
    };
    has(&legacy, "kind", "legacy form");
}

#[test]
fn differences_name_keys_and_never_show_them() {
    let diff = |a: &Parsed, b: &Parsed| differences(&a.config, &b.config, "ONE", "TWO");
    let base = secrets(&[&key("aescbc", &[("a", A), ("b", B)]), "identity: {}"]);
    assert_eq!(diff(&base, &base), Vec::<String>::new());
    let swapped = secrets(&[&key("aescbc", &[("b", B), ("a", A)]), "identity: {}"]);
    assert_eq!(
        diff(&base, &swapped),
        [
            "secrets: ONE writes with aescbc key `a`, TWO with aescbc key `b`",
            "secrets: the order of providers or keys differs"
        ]
    );
    let fewer = secrets(&[&key("aescbc", &[("a", A)])]);
    assert_eq!(
        diff(&base, &fewer),
        ["secrets: TWO lacks aescbc key `b`", "secrets: TWO lacks identity"]
    );
    let other_secret = secrets(&[&key("aescbc", &[("a", B), ("b", B)]), "identity: {}"]);
    assert!(
        diff(&base, &other_secret)
            .contains(&"secrets: aescbc key `a` has another secret in TWO than in ONE".to_owned())
    );
    let renamed = secrets(&[&key("aescbc", &[("a", A), ("c", B)]), "identity: {}"]);
    assert!(diff(&base, &renamed).contains(
        &"secrets: the secret of aescbc key `b` is called aescbc key `c` in TWO".to_owned()
    ));
    let kms = |at: &str| {
        secrets(&[
            &format!("kms: {{apiVersion: v2, name: a, endpoint: 'unix:///{at}'}}"),
            "identity: {}",
        ])
    };
    assert_eq!(
        diff(&kms("a"), &kms("b")),
        ["secrets: kms v2 `a` is at `unix:///a` in ONE and at `unix:///b` in TWO"]
    );
    let wider = config(
        "resources:\n- {resources: [secrets, pods], providers: [{aescbc: {keys: [{name: a, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}}]}\n",
    );
    assert_eq!(diff(&fewer, &wider), ["pods: configured in TWO only; ONE leaves it unencrypted"]);
}
