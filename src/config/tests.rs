use super::*;

const MINIMAL: &str = "apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers:
      - secretbox:
          keys:
            - {name: k, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}
      - identity: {}
";

#[test]
fn minimal() {
    let Ok(parsed) = parse(MINIMAL.as_bytes()) else { panic!("refused") };
    let serving = parsed.config.serving("secrets");
    assert_eq!(serving.providers[1].path(), "resources[0].providers[1]");
    assert!(serving.reads_plaintext() && !serving.writes_plaintext());
    assert!(parsed.config.serving("secrets.example.com").is_implied_identity());
}
