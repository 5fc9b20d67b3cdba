//! Archives of objects as Velero and rancher-backup write them, under throwaway keys.

use std::io::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// The secret of the key `k1`, of AES-GCM, and `k2`, of secretbox.
pub const RIGHT: [u8; 32] = [7; 32];
pub const WRONG: [u8; 32] = [8; 32];

pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A Secret with everything that an API server gives it, as JSON.
pub fn secret(namespace: &str, name: &str, value: &str) -> Vec<u8> {
    let data = base64(value.as_bytes());
    format!(
        r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"{name}","namespace":"{namespace}","uid":"4e2b9d3c-0000-4000-8000-000000000001","resourceVersion":"573"}},"type":"Opaque","data":{{"v":"{data}"}}}}"#
    )
    .into_bytes()
}

/// As rancher-backup saves it: without what the next cluster gives anew.
pub fn stripped(namespace: &str, name: &str, value: &str) -> Vec<u8> {
    let mut object: serde_json::Value =
        serde_json::from_slice(&secret(namespace, name, value)).unwrap();
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.remove("uid");
    metadata.remove("resourceVersion");
    object.to_string().into_bytes()
}

/// The file of a value that AES-GCM encrypts for `authenticated`.
pub fn aesgcm(secret: [u8; 32], authenticated: &str, plain: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &secret).unwrap());
    let nonce = [3; 12];
    let mut sealed = plain.to_vec();
    let aad = Aad::from(authenticated.as_bytes());
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).unwrap();
    quoted(&[b"k8s:enc:aesgcm:v1:k1:", &nonce[..], &sealed].concat())
}

/// The file of a value that secretbox encrypts, which authenticates nothing beside it.
pub fn secretbox(secret: [u8; 32], plain: &[u8]) -> Vec<u8> {
    let cipher = crypto_secretbox::XSalsa20Poly1305::new(&secret.into());
    let nonce = [5; 24];
    let sealed = cipher.encrypt(&nonce.into(), plain).unwrap();
    quoted(&[b"k8s:enc:secretbox:v1:k2:", &nonce[..], &sealed].concat())
}

fn quoted(value: &[u8]) -> Vec<u8> {
    format!("\"{}\"", base64(value)).into_bytes()
}

/// A configuration that encrypts Secrets with `provider`, both keys made of one secret.
pub fn config(dir: &tempfile::TempDir, provider: &str, secret: [u8; 32]) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let (mut first, mut second) = (("aesgcm", "k1"), ("secretbox", "k2"));
    if provider == second.0 {
        std::mem::swap(&mut first, &mut second);
    }
    let one = |(provider, key): (&str, &str)| {
        let secret = base64(&secret);
        format!("  - {provider}:\n      keys:\n      - name: {key}\n        secret: {secret}\n")
    };
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, users.management.cattle.io]\n  providers:\n{}{}  - identity: {{}}\n",
        one(first),
        one(second)
    );
    let path = dir.path().join(format!("{provider}-{}.yaml", secret[0]));
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

pub fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // As it is: the builder refuses names that lead elsewhere.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// A backup of Velero: each object of the preferred version twice.
pub fn velero() -> Vec<u8> {
    let map = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m","namespace":"shop","resourceVersion":"12"},"data":{"a":"b"}}"#;
    let node =
        br#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","resourceVersion":"9"}}"#;
    let widget = br#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w","namespace":"shop"}}"#;
    tar(&[
        ("metadata/version", b"1.1.0\n".to_vec()),
        (
            "resources/secrets/v1-preferredversion/namespaces/shop/db.json",
            secret("shop", "db", "x"),
        ),
        ("resources/secrets/namespaces/shop/db.json", secret("shop", "db", "x")),
        ("resources/secrets/namespaces/shop/api.json", secret("shop", "api", "y")),
        ("resources/configmaps/namespaces/shop/m.json", map.to_vec()),
        ("resources/nodes/cluster/n1.json", node.to_vec()),
        ("resources/widgets.example.com/namespaces/shop/w.json", widget.to_vec()),
    ])
}

/// An archive of rancher-backup: a Secret and a cluster-scoped object of each name and scope.
pub fn rancher() -> Vec<u8> {
    let user =
        br#"{"apiVersion":"management.cattle.io/v3","kind":"User","metadata":{"name":"u-1"}}"#;
    let map = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m","namespace":"shop"},"data":{"a":"b"}}"#;
    tar(&[
        ("filters/filters.json", b"[]".to_vec()),
        ("configmaps.#v1/shop/m.json", map.to_vec()),
        ("secrets.#v1/shop/db.json", aesgcm(RIGHT, "shop#db", &stripped("shop", "db", "x"))),
        ("users.management.cattle.io#v3/u-1.json", aesgcm(RIGHT, "u-1", user)),
    ])
}
