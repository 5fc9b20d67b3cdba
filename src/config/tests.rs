//! Every rule of the API server with a case that breaks it and one that does not.

use super::*;
use crate::envelope;

const K16: &str = "AAECAwQFBgcICQoLDA0ODw==";
const K24: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const K32: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const HEADER: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";

/// The errors as `path: message`, in order.
fn errors(text: &str) -> Vec<String> {
    match parse(text.as_bytes()) {
        Ok(_) => Vec::new(),
        Err(e) => {
            assert!(!e.errors.is_empty());
            e.errors.iter().map(|f| format!("{}: {}", f.path, f.message)).collect()
        }
    }
}

/// One entry for secrets with these providers, in flow style.
fn providers(list: &str) -> String {
    format!("{HEADER}resources:\n- resources: [secrets]\n  providers: {list}\n")
}

/// One entry with these resources and identity.
fn resources(list: &str) -> String {
    format!("{HEADER}resources:\n- resources: {list}\n  providers: [{{identity: {{}}}}]\n")
}

/// Exactly these errors: each given by the path and a part of the message.
fn refused(text: &str, expected: &[(&str, &str)]) {
    let got = errors(text);
    let fits = got.len() == expected.len()
        && got.iter().zip(expected).all(|(g, (path, part))| {
            g.strip_prefix(path).is_some_and(|m| m.starts_with(": ") && m.contains(part))
        });
    assert!(fits, "{text}\nexpected {expected:#?}\ngot {got:#?}");
}

fn accepted(text: &str) -> Parsed {
    match parse(text.as_bytes()) {
        Ok(parsed) => parsed,
        Err(e) => panic!("{text}\n{:#?}", e.errors),
    }
}

fn secretbox(name: &str, secret: &str) -> String {
    format!("{{secretbox: {{keys: [{{name: {name}, secret: \"{secret}\"}}]}}}}")
}

fn kms(fields: &str) -> String {
    providers(&format!("[{{kms: {{{fields}}}}}]"))
}

#[test]
fn kinds() {
    let body = "resources: [{resources: [secrets], providers: [{identity: {}}]}]\n";
    assert!(!accepted(&format!("{HEADER}{body}")).config.legacy_kind);
    assert!(
        accepted(&format!("apiVersion: v1\nkind: EncryptionConfig\n{body}")).config.legacy_kind
    );
    for (header, path, part) in [
        ("", "kind", "is required"),
        ("apiVersion: apiserver.config.k8s.io/v1\n", "kind", "is required"),
        ("kind: EncryptionConfiguration\n", "apiVersion", "is required"),
        ("apiVersion: v1\nkind: EncryptionConfiguration\n", "kind", "of apiVersion `v1`"),
        ("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfig\n", "kind", "is not an"),
        (
            "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: EncryptionConfiguration\n",
            "kind",
            "is not an",
        ),
        (
            "apiVersion: apiserver.config.k8s.io/v1\nkind: encryptionconfiguration\n",
            "kind",
            "is not an",
        ),
        ("apiVersion: 1\nkind: EncryptionConfig\n", "apiVersion", "must be a string"),
    ] {
        refused(&format!("{header}{body}"), &[(path, part)]);
    }
}

#[test]
fn documents() {
    refused("", &[("", "is empty")]);
    refused("# only a comment\n", &[("kind", "is required")]);
    refused("null\n", &[("kind", "is required"), ("resources", "at least one")]);
    refused("- a\n", &[("", "must be an object, not a list"), ("kind", "is required")]);
    refused("a: [\n", &[("", "not valid YAML")]);
    refused("{\"a\": }", &[("", "not valid JSON")]);
    assert_eq!(
        parse(b"\xff\xfe").err().unwrap().errors[0].message,
        "the configuration is not UTF-8 text"
    );
    // A byte order mark is skipped; only the first of several documents counts, with a warning.
    let one = resources("[secrets]");
    accepted(&format!("\u{feff}{one}"));
    accepted(&format!("---\n{one}"));
    assert!(accepted(&one).warnings.is_empty());
    let two = accepted(&format!("{one}---\nkind: Other\n"));
    assert!(two.warnings[0].message.contains("several YAML documents"));
    assert_eq!(two.warnings[0].at.unwrap().line, 7);
}

#[test]
fn json_is_read_as_yaml_is() {
    let json = format!(
        "{{\"kind\":\"EncryptionConfiguration\",\"apiVersion\":\"apiserver.config.k8s.io/v1\",\"resources\":[{{\"resources\":[\"secrets\"],\"providers\":[{{\"aescbc\":{{\"keys\":[{{\"name\":\"aescbckey\",\"secret\":\"{K32}\"}}]}}}},{{\"identity\":{{}}}}]}}]}}"
    );
    let parsed = accepted(&json);
    assert_eq!(parsed.config.entries[0].providers[0].keys()[0].secret.len(), 32);
    // What begins with a brace must be JSON, since the API server reads it as such.
    refused(&json.replace("\"kind\"", "kind"), &[("", "not valid JSON")]);
    refused(
        &json.replace("\"secrets\"", "\"secrets\",\"secrets\""),
        &[("resources[0].resources", "`secrets` is listed twice")],
    );
}

#[test]
fn fields_are_strict() {
    let base = providers(&format!("[{}, {{identity: {{}}}}]", secretbox("k", K32)));
    accepted(&base);
    refused(&format!("{base}extra: 1\n"), &[("extra", "unknown field")]);
    refused(&format!("{base}metadata: {{name: x}}\n"), &[("metadata", "unknown field")]);
    refused(&format!("{base}kind: EncryptionConfiguration\n"), &[("kind", "duplicate field")]);
    refused(
        &base.replace("resources:\n-", "Resources:\n-"),
        &[("resources", "at least one entry"), ("Resources", "the case must be `resources`")],
    );
    refused(
        &base.replace("secretbox", "secretBox"),
        &[("resources[0].providers[0].secretBox", "the case must be `secretbox`")],
    );
    refused(
        &base.replace("name: k", "name: k, name: k"),
        &[("resources[0].providers[0].secretbox.keys[0].name", "duplicate field")],
    );
    refused(
        &base.replace("identity: {}", "identity: {a: 1}"),
        &[("resources[0].providers[1].identity.a", "unknown field")],
    );
    refused(
        &base.replace("identity: {}", "identity: []"),
        &[("resources[0].providers[1].identity", "must be an object, not a list")],
    );
    refused(
        &base.replace("name: k", "name: yes"),
        &[(
            "resources[0].providers[0].secretbox.keys[0].name",
            "must be a string, not a boolean: put it in quotes",
        )],
    );
    refused(
        &base.replace("[secrets]", "secrets"),
        &[("resources[0].resources", "must be a list, not a string")],
    );
    refused(
        &base.replace("[secrets]", "[1]"),
        &[("resources[0].resources[0]", "must be a string, not a number")],
    );
    refused(&format!("{HEADER}resources: {{}}\n"), &[("resources", "must be a list")]);
    refused(&format!("{HEADER}resources: [1]\n"), &[("resources[0]", "must be an object")]);
}

#[test]
fn rule_1_lists_are_not_empty() {
    refused(HEADER, &[("resources", "at least one entry")]);
    refused(&format!("{HEADER}resources: []\n"), &[("resources", "at least one entry")]);
    refused(&format!("{HEADER}resources:\n"), &[("resources", "at least one entry")]);
    refused(&resources("[]"), &[("resources[0].resources", "at least one resource")]);
    refused(&resources(""), &[("resources[0].resources", "at least one resource")]);
    refused(&providers("[]"), &[("resources[0].providers", "at least one provider")]);
    refused(
        &format!("{HEADER}resources:\n-\n"),
        &[
            ("resources[0].resources", "at least one resource"),
            ("resources[0].providers", "at least one provider"),
        ],
    );
}

#[test]
fn rule_2_one_provider_an_element() {
    for none in ["[{}]", "[{identity: }]", "[{identity: null}]", "[null]"] {
        refused(&providers(none), &[("resources[0].providers[0]", "holds no provider")]);
    }
    accepted(&providers("[{identity: {}, kms: null}]"));
    refused(
        &providers(&format!(
            "[{{identity: {{}}, aescbc: {{keys: [{{name: a, secret: {K32}}}]}}}}]"
        )),
        &[("resources[0].providers[0]", "more than one provider")],
    );
    // Something unknown in its place is said once.
    refused(&providers("[{foo: {}}]"), &[("resources[0].providers[0].foo", "unknown field")]);
}

#[test]
fn rule_3_keys() {
    let path = "resources[0].providers[0].secretbox.keys";
    refused(&providers("[{secretbox: {}}]"), &[(path, "at least one key")]);
    refused(&providers("[{secretbox: {keys: []}}]"), &[(path, "at least one key")]);
    refused(
        &providers("[{secretbox: {keys: [{}]}}]"),
        &[
            (&format!("{path}[0].name"), "needs a name"),
            (&format!("{path}[0].secret"), "needs a secret"),
        ],
    );
    refused(
        &providers(&format!("[{}]", secretbox("''", K32))),
        &[(&format!("{path}[0].name"), "needs a name")],
    );
    let secret = format!("{path}[0].secret");
    refused(&providers(&format!("[{}]", secretbox("k", ""))), &[(&secret, "needs a secret")]);
    // Unpadded, URL-safe, with a space, or not base64 at all.
    for bad in [&K32[..43], "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd-_8=", "AAEC AwQF", "@", "A"] {
        refused(&providers(&format!("[{}]", secretbox("k", bad))), &[(&secret, "is not base64")]);
    }
    for (bad, len) in
        [(K16, 16), (K24, 24), ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8K", 33), ("AA==", 1)]
    {
        refused(
            &providers(&format!("[{}]", secretbox("k", bad))),
            &[(&secret, &format!("has {len} bytes, but must have 32"))],
        );
    }
    for provider in ["aescbc", "aesgcm"] {
        let with = |secret: &str| {
            providers(&format!("[{{{provider}: {{keys: [{{name: k, secret: \"{secret}\"}}]}}}}]"))
        };
        for (good, len) in [(K16, 16), (K24, 24), (K32, 32)] {
            let parsed = accepted(&with(good));
            assert_eq!(parsed.config.entries[0].providers[0].keys()[0].secret.len(), len);
        }
        refused(
            &with("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8K"),
            &[(
                &format!("resources[0].providers[0].{provider}.keys[0].secret"),
                "33 bytes, but must have 16, 24, 32",
            )],
        );
    }
    // Line breaks inside are skipped, and the bits after the last byte do not matter.
    let broken = format!("{}\\n{}\\r\\n", &K32[..20], &K32[20..]);
    let key = accepted(&providers(&format!("[{}]", secretbox("k", &broken))));
    let expected: Vec<u8> = (0..32).collect();
    assert_eq!(key.config.entries[0].providers[0].keys()[0].secret.expose(), expected);
    accepted(&providers(&format!("[{}]", secretbox("k", &K32.replace("8=", "9=")))));
    // Nothing is asked of a key's name.
    for name in ["'aescbckey-2024-05-01T10:11:12+02:00'", "' a b '", "'ключ:🔑'", "v1", "x"] {
        accepted(&providers(&format!("[{}, {}]", secretbox(name, K32), secretbox(name, K32))));
    }
    accepted(&providers(&format!("[{}]", secretbox(&"n".repeat(10_000), K32))));
}

#[test]
fn rule_4_kms() {
    let at = |field: &str| format!("resources[0].providers[0].kms.{field}");
    let good = "apiVersion: v2, name: a, endpoint: 'unix:///run/a.sock'";
    let parsed = accepted(&kms(good));
    let ProviderConfiguration::Kms(settings) = &parsed.config.entries[0].providers[0] else {
        panic!()
    };
    assert_eq!(settings.api_version, envelope::Version::V2);
    assert_eq!(settings.timeout, std::time::Duration::from_secs(3));
    assert_eq!(settings.endpoint.socket, Socket::Path("/run/a.sock".into()));
    for v1 in ["", "apiVersion: v1, ", "apiVersion: '', ", "apiVersion: null, "] {
        let parsed =
            accepted(&kms(&format!("{v1}name: 'a:b', endpoint: 'unix:///a', timeout: 10s")));
        let ProviderConfiguration::Kms(settings) = &parsed.config.entries[0].providers[0] else {
            panic!()
        };
        assert_eq!(settings.api_version, envelope::Version::V1);
        assert_eq!((settings.cachesize, settings.timeout.as_secs()), (1000, 10));
    }
    refused(&kms("apiVersion: v2, endpoint: 'unix:///a'"), &[(&at("name"), "needs a name")]);
    refused(&kms(&good.replace("name: a", "name: 'a:b'")), &[(&at("name"), "colon")]);
    for timeout in ["0s", "-1s", "'0'"] {
        refused(
            &kms(&format!("{good}, timeout: {timeout}")),
            &[(&at("timeout"), "more than zero")],
        );
    }
    // What the message says is right: taken at its word, the file is valid.
    for (number, example) in [("3", "3s"), ("0.5", "3s"), ("-1", "3s"), ("30", "30s")] {
        let advice = format!("write a duration such as `{example}`");
        refused(&kms(&format!("{good}, timeout: {number}")), &[(&at("timeout"), &advice)]);
        accepted(&kms(&format!("{good}, timeout: {example}")));
    }
    refused(&kms(&format!("{good}, timeout: soon")), &[(&at("timeout"), "is not a duration")]);
    refused(&kms("apiVersion: v2, name: a"), &[(&at("endpoint"), "is required")]);
    refused(&kms("name: a, endpoint: ''"), &[(&at("endpoint"), "is required")]);
    refused(&kms("name: a, endpoint: 'tcp://a:1'"), &[(&at("endpoint"), "scheme")]);
    refused(&kms("name: a, endpoint: 'unix:///%zz'"), &[(&at("endpoint"), "not a valid URL")]);
    refused(&kms(&format!("{good}, cachesize: 5")), &[(&at("cachesize"), "KMS v1 only")]);
    refused(&kms(&format!("{good}, cachesize: 0")), &[(&at("cachesize"), "KMS v1 only")]);
    let v1 = "name: a, endpoint: 'unix:///a'";
    refused(&kms(&format!("{v1}, cachesize: 0")), &[(&at("cachesize"), "negative for no cache")]);
    accepted(&kms(&format!("{v1}, cachesize: -1")));
    for wrong in ["3000000000", "1.5", "'5'"] {
        refused(
            &kms(&format!("{v1}, cachesize: {wrong}")),
            &[(&at("cachesize"), "32-bit integer")],
        );
    }
    refused(&kms(&good.replace("v2", "v3")), &[(&at("apiVersion"), "`v3` is not supported")]);
    refused(&kms(&good.replace("v2", "V2")), &[(&at("apiVersion"), "not supported")]);
}

#[test]
fn rule_4_kms_names_are_unique_where_v2_looks() {
    let one = |version: &str, name: &str| {
        format!("{{kms: {{apiVersion: {version}, name: {name}, endpoint: 'unix:///a'}}}}")
    };
    let two = |a: String, b: String| {
        format!(
            "{HEADER}resources:\n- {{resources: [secrets], providers: [{a}]}}\n- {{resources: [configmaps], providers: [{b}]}}\n"
        )
    };
    accepted(&two(one("v2", "a"), one("v2", "b")));
    let path = "resources[1].providers[0].kms.name";
    for first in ["v1", "v2"] {
        refused(&two(one(first, "a"), one("v2", "a")), &[(path, "an earlier KMS provider")]);
    }
    // A v1 name may repeat any earlier one, unless the file is reloaded automatically.
    accepted(&two(one("v2", "a"), one("v1", "a")));
    let parsed = accepted(&two(one("v1", "a"), one("v1", "a")));
    assert!(
        parsed.advice().iter().any(|w| w.path == path && w.message.contains("automatic-reload"))
    );
}

#[test]
fn rule_5_resource_names() {
    let path = "resources[0].resources[0]";
    for (name, part) in [
        ("Secrets", "capital letters"),
        ("secretS.", "capital letters"),
        ("widgets.Example.com", "capital letters"),
        ("'Ä'", "capital letters"),
        ("'*'", "`*.*` for everything"),
        ("apiserveripinfo", "no REST API"),
        ("serviceipallocations", "no REST API"),
        ("servicenodeportallocations", "no REST API"),
        ("events.events.k8s.io", "use `events`"),
        ("'*.events.k8s.io'", "use `events`"),
        ("ingresses.extensions", "no longer exists"),
        ("'*.extensions'", "no longer exists"),
        ("'secrets.*'", "across all groups"),
    ] {
        refused(&resources(&format!("[{name}]")), &[(path, part)]);
    }
    for name in [
        "secrets",
        "secrets.",
        "events",
        "'*.'",
        "'*.apps'",
        "'*.*'",
        "widgets.example.com",
        "''",
        "null",
        "ä",
    ] {
        accepted(&resources(&format!("[{name}]")));
    }
}

#[test]
fn rule_6_overlap_within_one_entry() {
    let path = "resources[0].resources";
    for (list, part) in [
        ("[secrets, secrets]", "`secrets` is listed twice"),
        ("[secrets, configmaps, secrets.]", "`secrets` is listed twice"),
        ("['*.apps', '*.apps']", "`*.apps` is listed twice"),
        ("['*.*', secrets]", "`*.*` and `secrets` overlap"),
        ("[pods.example.com, '*.*']", "overlap"),
        ("['*.', secrets]", "`*.` and `secrets` overlap"),
        ("[deployments.apps, '*.apps']", "overlap"),
    ] {
        refused(&resources(list), &[(path, part)]);
    }
    refused(&resources("['*.*', '*.*', secrets]"), &[(path, "listed twice"), (path, "overlap")]);
    accepted(&resources("['*.', '*.apps', widgets.example.com]"));
}

#[test]
fn rule_7_masked_by_an_earlier_wildcard() {
    let entries = |a: &str, b: &str| {
        let one =
            |list: &str| format!("- {{resources: {list}, providers: [{{identity: {{}}}}]}}\n");
        format!("{HEADER}resources:\n{}{}", one(a), one(b))
    };
    let path = "resources[1].resources[0]";
    for (a, b, part) in [
        ("['*.*']", "[secrets]", "`secrets` is masked by the earlier `*.*`"),
        ("['*.*']", "['*.*']", "masked by the earlier `*.*`"),
        ("['*.apps']", "[deployments.apps]", "masked by the earlier `*.apps`"),
        ("['*.apps']", "['*.apps']", "masked by the earlier `*.apps`"),
        ("['*.']", "[secrets]", "masked by the earlier `*.`"),
        ("['*.*']", "['*.apps']", "masked by the earlier `*.*`"),
    ] {
        refused(&entries(a, b), &[(path, part)]);
    }
    for (a, b) in [
        ("[secrets]", "['*.*']"),
        ("[secrets]", "['*.']"),
        ("[secrets]", "[secrets]"),
        ("['*.']", "[deployments.apps]"),
    ] {
        accepted(&entries(a, b));
    }
}

#[test]
fn every_error_is_reported_with_its_place() {
    let text = format!(
        "{HEADER}resources:\n- resources:\n  - Secrets\n  providers:\n  - aescbc:\n      keys:\n      - name: a\n        secret: AAAA\n  - identity:\n"
    );
    let found = parse(text.as_bytes()).err().unwrap().errors;
    let places: Vec<_> =
        found.iter().map(|f| (f.path.as_str(), f.at.unwrap().line, f.at.unwrap().column)).collect();
    assert_eq!(
        places,
        [
            ("resources[0].resources[0]", 5, 5),
            ("resources[0].providers[0].aescbc.keys[0].secret", 10, 17),
            ("resources[0].providers[1]", 11, 5),
        ]
    );
    assert_eq!(
        found[0].to_string(),
        "line 5, column 5: resources[0].resources[0]: `Secrets` has capital letters: resources are written in lower case"
    );
}

#[test]
fn long_json_on_one_line_is_read() {
    // YAML limits what stands before a colon to 1024 characters; JSON does not care.
    let keys: Vec<String> =
        (0..60).map(|i| format!("{{\"name\":\"key-{i}\",\"secret\":\"{K32}\"}}")).collect();
    let element = format!("{{\"secretbox\":{{\"keys\":[{}]}}}}", keys.join(","));
    let json = format!(
        "{{\"kind\":\"EncryptionConfiguration\",\"apiVersion\":\"apiserver.config.k8s.io/v1\",\"resources\":[{{\"resources\":[\"secrets\"],\"providers\":[{element},{element},{{\"identity\":{{}}}}]}}]}}"
    );
    assert!(json.len() > 6000);
    assert_eq!(accepted(&json).config.entries[0].providers[1].keys().len(), 60);
    accepted(&format!("  \r\n{}\r\n", json.replace(',', ",\r\n\t")));
}
