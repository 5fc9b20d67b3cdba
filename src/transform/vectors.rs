//! Vectors computed independently of this crate, and the tricky cases of each layout.
//!
//! Plaintext `{"a":1}`, key 00 01 … 1f, etcd key `/registry/secrets/default/a`.

use super::kms_v2::{DataKey, Object, SourceType};
use super::{CipherError, aescbc, aesgcm, kms_v1, secretbox};
use crate::secret::{KeyMaterial, Plaintext};

const PLAINTEXT: &[u8] = br#"{"a":1}"#;
const PATH: &[u8] = b"/registry/secrets/default/a";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|d| u8::try_from(d[0] * 16 + d[1]).unwrap()).collect()
}

fn key(len: u8) -> KeyMaterial {
    KeyMaterial::new((0..len).collect())
}

fn run<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|i| first + u8::try_from(i).unwrap())
}

/// Fails without printing what came out.
#[track_caller]
fn assert_plaintext(got: Result<Plaintext, CipherError>) {
    match got {
        Ok(p) => assert!(p.expose() == PLAINTEXT, "decrypts to something else"),
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn assert_error(got: Result<Plaintext, CipherError>, want: &CipherError) {
    match got {
        Ok(_) => panic!("decrypts"),
        Err(error) => assert_eq!(&error, want),
    }
}

#[test]
fn aescbc_vector() {
    let want = hex("404142434445464748494a4b4c4d4e4f f27083649096f602c53c29ceccd9d252");
    let cipher = aescbc::Cipher::new(&key(32)).unwrap();
    let mut out = Vec::new();
    cipher.seal_with(&run(0x40), PLAINTEXT, &mut out);
    assert_eq!(out, want);
    assert_plaintext(cipher.open(&want));
}

#[test]
fn aesgcm_vector() {
    let want = hex("505152535455565758595a5b e9055756de61c4 aeb52e73f016b197eaee2a2211dbbd90");
    let cipher = aesgcm::Cipher::new(&key(32)).unwrap();
    let mut out = Vec::new();
    cipher.seal_with(run(0x50), PATH, PLAINTEXT, &mut out).unwrap();
    assert_eq!(out, want);
    assert_plaintext(cipher.open(PATH, &want));
}

#[test]
fn secretbox_vector() {
    let want = hex("606162636465666768696a6b6c6d6e6f7071727374757677
         20631180117fb9aeccf1101967b9530a e8eccaf6e5679d");
    let cipher = secretbox::Cipher::new(&key(32)).unwrap();
    let mut out = Vec::new();
    cipher.seal_with(&run(0x60), PLAINTEXT, &mut out).unwrap();
    assert_eq!(out, want);
    assert_plaintext(cipher.open(&want));
}

#[test]
fn kms_v1_vector() {
    let want = hex("0003 aabbcc 505152535455565758595a5b e9055756de61c4
         aeb52e73f016b197eaee2a2211dbbd90");
    let mut out = Vec::new();
    kms_v1::seal_with(run(0x50), &key(32), &[0xaa, 0xbb, 0xcc], PATH, PLAINTEXT, &mut out).unwrap();
    assert_eq!(out, want);
    let payload = kms_v1::Payload::parse(&want).unwrap();
    assert_eq!(payload.wrapped, [0xaa, 0xbb, 0xcc]);
    let (plaintext, stale) = payload.open(&key(32), PATH).unwrap();
    assert!(plaintext.expose() == PLAINTEXT && !stale);
}

#[test]
fn kms_v2_vectors() {
    let DataKey::Seed(seed) = DataKey::new(SourceType::HkdfSeed, &key(32)).unwrap() else {
        panic!("a seed");
    };
    assert_eq!(
        seed.derive_bytes(&run(0x80)).unwrap()[..],
        hex("8d2f952e07a9c1cd3cea5b9b961cf91ff95cfedffe48886f85604d7874fbf953")
    );
    let seed = DataKey::Seed(seed);
    let data = seed.seal_with(run(0x80), run(0x50), PATH, PLAINTEXT).unwrap();
    let mut want = run::<32>(0x80).to_vec();
    want.extend(hex("505152535455565758595a5b c854c601febdfa 6aa02a4d5361a62a83eeeec8496497e5"));
    assert_eq!(data, want);
    assert_plaintext(seed.open(PATH, &data));

    let object = Object {
        data: &data,
        key_id: "kid1",
        source: &[0xaa, 0xbb],
        annotations: vec![],
        source_type: SourceType::HkdfSeed,
    };
    let mut out = Vec::new();
    object.encode(&mut out).unwrap();
    let mut want = hex("0a43");
    want.extend(&data);
    want.extend(hex("12046b696431 1a02aabb 2801"));
    assert_eq!(out, want);
    assert_eq!(out.len(), 81);
    assert!(Object::parse(&out).unwrap() == object);
}

#[test]
fn keys_of_every_length() {
    for len in 0..=64 {
        let k = key(len);
        let aes = matches!(len, 16 | 24 | 32);
        assert_eq!(aescbc::Cipher::new(&k).is_ok(), aes, "aescbc {len}");
        assert_eq!(aesgcm::Cipher::new(&k).is_ok(), aes, "aesgcm {len}");
        assert_eq!(secretbox::Cipher::new(&k).is_ok(), len == 32, "secretbox {len}");
        assert_eq!(DataKey::new(SourceType::AesGcmKey, &k).is_ok(), aes, "kms v2 key {len}");
        assert_eq!(DataKey::new(SourceType::HkdfSeed, &k).is_ok(), len >= 32, "kms v2 seed {len}");
    }
}

#[test]
fn round_trips_of_every_length() {
    let big = vec![b'x'; 70_000];
    for len in (0..130).chain([4095, 4096, 4097, 70_000]) {
        let plain = &big[..len];
        let same = |got: Result<Plaintext, CipherError>| got.unwrap().expose() == plain;
        let mut out = Vec::new();
        let c = secretbox::Cipher::new(&key(32)).unwrap();
        c.seal(plain, &mut out).unwrap();
        assert!(same(c.open(&out)), "secretbox {len}");
        for k in [16, 24, 32].map(key) {
            let (mut cbc, mut gcm) = (Vec::new(), Vec::new());
            let c = aescbc::Cipher::new(&k).unwrap();
            c.seal(plain, &mut cbc).unwrap();
            assert!(same(c.open(&cbc)), "aescbc {len}");
            let c = aesgcm::Cipher::new(&k).unwrap();
            c.seal(PATH, plain, &mut gcm).unwrap();
            assert!(same(c.open(PATH, &gcm)), "aesgcm {len}");
        }
        let c = DataKey::new(SourceType::HkdfSeed, &key(32)).unwrap();
        assert!(same(c.open(PATH, &c.seal(PATH, plain).unwrap())), "kms v2 {len}");
    }
}

#[test]
fn nonces_are_not_reused() {
    let c = aesgcm::Cipher::new(&key(32)).unwrap();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    c.seal(PATH, PLAINTEXT, &mut a).unwrap();
    c.seal(PATH, PLAINTEXT, &mut b).unwrap();
    assert_ne!(a[..12], b[..12]);
}

#[test]
fn case_6_cbc_lengths_and_paddings() {
    let c = aescbc::Cipher::new(&key(32)).unwrap();
    let short = |len| CipherError::TooShort { len, min: 32 };
    assert_error(c.open(&[]), &short(0));
    assert_error(c.open(&[0; 15]), &short(15));
    assert_error(c.open(&[0; 16]), &short(16));
    assert_error(c.open(&[0; 17]), &CipherError::Misaligned { len: 1 });
    let mut out = Vec::new();
    c.seal(PLAINTEXT, &mut out).unwrap();
    assert_error(c.open(&out[..31]), &CipherError::Misaligned { len: 15 });

    // Raw blocks without the writer's padding, to place any padding byte.
    let raw = |plain: &[u8]| {
        let mut sealed = Vec::new();
        c.seal_with(&[7; 16], plain, &mut sealed);
        sealed.truncate(16 + plain.len());
        sealed
    };
    let padded = |total: usize, pad: u8, n: usize| {
        let mut plain = vec![b'a'; total - n];
        plain.resize(total, pad);
        plain
    };
    let opens = |plain: &[u8]| c.open(&raw(plain)).map(|p| p.len());
    assert_eq!(opens(&padded(16, 0, 1)), Err(CipherError::Padding));
    assert_eq!(opens(&padded(16, 17, 16)), Err(CipherError::Padding), "longer than the data");
    assert_eq!(opens(&padded(32, 17, 17)), Ok(15), "lax: more than a block");
    assert_eq!(opens(&padded(256, 255, 255)), Ok(1));
    assert_eq!(opens(&padded(32, 2, 1)), Err(CipherError::Padding));
    assert_eq!(opens(&padded(16, 16, 16)), Ok(0));
}

#[test]
fn case_7_copies_to_another_etcd_key() {
    let other = b"/registry/secrets/default/b";
    let mut out = Vec::new();
    let gcm = aesgcm::Cipher::new(&key(32)).unwrap();
    gcm.seal(PATH, PLAINTEXT, &mut out).unwrap();
    assert_error(gcm.open(other, &out), &CipherError::AuthenticationOrPath);
    let seed = DataKey::new(SourceType::HkdfSeed, &key(32)).unwrap();
    let data = seed.seal(PATH, PLAINTEXT).unwrap();
    assert_error(seed.open(other, &data), &CipherError::AuthenticationOrPath);
    let mut v1 = Vec::new();
    kms_v1::seal(&key(32), b"dek", PATH, PLAINTEXT, &mut v1).unwrap();
    let copied = kms_v1::Payload::parse(&v1).unwrap().open(&key(32), other);
    assert_error(copied.map(|(p, _)| p), &CipherError::AuthenticationOrPath);

    // A KMS v1 body in CBC is not bound to its key.
    let mut v1 = vec![0, 3, b'd', b'e', b'k'];
    aescbc::Cipher::new(&key(32)).unwrap().seal(PLAINTEXT, &mut v1).unwrap();
    let (plaintext, stale) = kms_v1::Payload::parse(&v1).unwrap().open(&key(32), other).unwrap();
    assert!(plaintext.expose() == PLAINTEXT);
    assert!(stale, "a body in CBC is rewritten");
}

#[test]
fn case_8_another_prefix_is_another_etcd_key() {
    let mut out = Vec::new();
    let gcm = aesgcm::Cipher::new(&key(24)).unwrap();
    gcm.seal(PATH, PLAINTEXT, &mut out).unwrap();
    let moved = gcm.open(b"/kubernetes.io/secrets/default/a", &out);
    assert_error(moved, &CipherError::AuthenticationOrPath);
}

#[test]
fn case_9_kms_v1_layouts() {
    let parse = |bytes: &[u8]| kms_v1::Payload::parse(bytes).map(|p| p.wrapped.len());
    let body = [0; 28];
    let with = |len: [u8; 2], rest: &[u8]| [&len[..], rest].concat();
    assert_eq!(parse(&[]), Err(CipherError::TooShort { len: 0, min: 2 }));
    assert_eq!(parse(&[0]), Err(CipherError::TooShort { len: 1, min: 2 }));
    assert!(matches!(parse(&with([0, 0], &body)), Err(CipherError::Malformed(_))), "L = 0");
    assert!(matches!(parse(&with([0, 29], &body)), Err(CipherError::Malformed(_))));
    assert!(matches!(parse(&with([255, 255], &body)), Err(CipherError::Malformed(_))));
    assert_eq!(
        parse(&with([0, 17], &body)),
        Err(CipherError::TooShort { len: 11, min: 28 }),
        "a body below a nonce"
    );
    assert_eq!(parse(&with([0, 3], &[0; 31])), Ok(3));
    let largest = vec![1; 65_535 + 28];
    assert_eq!(parse(&with([255, 255], &largest)), Ok(65_535));
    let mut out = Vec::new();
    let sealed = kms_v1::seal(&key(32), &vec![1; 65_536], PATH, PLAINTEXT, &mut out);
    assert!(matches!(sealed, Err(CipherError::TooLarge(_))));
}

/// An `EncryptedObject` without any check, and raw fields after the first three.
fn message(data: &[u8], key_id: &[u8], source: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, bytes) in [(1, data), (2, key_id), (3, source)] {
        crate::proto::put_bytes(&mut out, field, bytes);
    }
    out.extend(rest);
    out
}

fn annotation(name: &str, value_len: usize) -> Vec<u8> {
    let (mut entry, mut out) = (Vec::new(), Vec::new());
    crate::proto::put_bytes(&mut entry, 1, name.as_bytes());
    crate::proto::put_bytes(&mut entry, 2, &vec![b'v'; value_len]);
    crate::proto::put_bytes(&mut out, 4, &entry);
    out
}

#[test]
fn case_10_kms_v2_messages() {
    let parse = |bytes: &[u8]| Object::parse(bytes).map(|o| o.source_type);
    let refused = |bytes: &[u8]| matches!(Object::parse(bytes), Err(CipherError::Malformed(_)));
    let plain = message(b"data", b"kid", b"source", &[]);
    assert_eq!(parse(&plain), Ok(SourceType::AesGcmKey), "type absent is 0");
    assert_eq!(parse(&message(b"d", b"k", b"s", &[0x28, 1])), Ok(SourceType::HkdfSeed));
    assert!(refused(&message(b"d", b"k", b"s", &[0x28, 2])), "type 2");
    assert!(refused(&message(b"d", b"k", b"s", &[0x28, 0x81, 0x80, 0x80, 0x80, 0x10])));
    assert_eq!(parse(&message(b"d", b"k", b"s", &[0x28, 2, 0x28, 1])), Ok(SourceType::HkdfSeed));

    assert!(refused(&message(b"d", &[b'k'; 1025], b"s", &[])));
    assert!(parse(&message(b"d", &[b'k'; 1024], b"s", &[])).is_ok());
    assert!(refused(&message(b"d", b"", b"s", &[])));
    assert!(refused(&message(b"d", &[0xff], b"s", &[])), "not UTF-8");
    assert!(refused(&message(b"d", b"k", &[1; 1025], &[])));
    assert!(parse(&message(b"d", b"k", &[1; 1024], &[])).is_ok());
    assert!(refused(&message(b"d", b"k", b"", &[])));
    assert!(refused(&message(b"", b"k", b"s", &[])));
    assert!(refused(b""));
    assert!(refused(&plain[..plain.len() - 1]), "incomplete");

    let noted = |name: &str, len| message(b"d", b"k", b"s", &annotation(name, len));
    assert!(parse(&noted("version.example.com", 3)).is_ok());
    assert!(parse(&noted("example.com.", 3)).is_ok(), "a final dot");
    for name in ["nodot", "nodot.", "Upper.example", "-a.b", "a-.b", "a..b", ".a.b", "", "a_b.c"] {
        assert!(refused(&noted(name, 3)), "{name}");
    }
    assert!(parse(&noted("a.b", 32 * 1024 - 3)).is_ok());
    assert!(refused(&noted("a.b", 32 * 1024 - 2)));

    // Of duplicate scalars the last counts; unknown fields of any type are skipped.
    let twice = message(b"d", b"k", b"s", &[0x12, 1, b'z', 0x48, 5, 0x51, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(Object::parse(&twice).unwrap().key_id, "z");
    let mut same = annotation("a.b", 1);
    same.extend(annotation("a.b", 2));
    let twice = message(b"d", b"k", b"s", &same);
    assert_eq!(Object::parse(&twice).unwrap().annotations, [("a.b", &b"vv"[..])]);

    let seed = DataKey::new(SourceType::HkdfSeed, &key(32)).unwrap();
    for len in [0, 31, 32, 59] {
        let got = seed.open(PATH, &vec![0; len]);
        assert!(matches!(got, Err(CipherError::TooShort { .. })), "{len}");
    }
    let aes = DataKey::new(SourceType::AesGcmKey, &key(32)).unwrap();
    assert!(matches!(aes.open(PATH, &[0; 27]), Err(CipherError::TooShort { .. })));
}

#[test]
fn agrees_with_independent_implementations() {
    use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
    use crypto_secretbox::aead::{Aead as _, KeyInit as _};
    let plain = vec![b'p'; 5000];
    let mut out = Vec::new();
    secretbox::Cipher::new(&key(32)).unwrap().seal(&plain, &mut out).unwrap();
    let other = crypto_secretbox::XSalsa20Poly1305::new_from_slice(key(32).expose()).unwrap();
    let nonce = crypto_secretbox::Nonce::from_slice(&out[..24]);
    assert!(other.decrypt(nonce, &out[24..]).unwrap() == plain);

    let mut out = Vec::new();
    aesgcm::Cipher::new(&key(32)).unwrap().seal(PATH, &plain, &mut out).unwrap();
    let other = aes_gcm::Aes256Gcm::new_from_slice(key(32).expose()).unwrap();
    let nonce = aes_gcm::Nonce::try_from(&out[..12]).unwrap();
    assert!(other.decrypt(&nonce, Payload { msg: &out[12..], aad: PATH }).unwrap() == plain);
    let mut out = Vec::new();
    aesgcm::Cipher::new(&key(16)).unwrap().seal(PATH, &plain, &mut out).unwrap();
    let other = aes_gcm::Aes128Gcm::new_from_slice(key(16).expose()).unwrap();
    let nonce = aes_gcm::Nonce::try_from(&out[..12]).unwrap();
    assert!(other.decrypt(&nonce, Payload { msg: &out[12..], aad: PATH }).unwrap() == plain);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Flips at least one bit of `bytes`.
    fn flip(bytes: &mut [u8], at: usize, bits: u8) {
        let at = at % bytes.len();
        bytes[at] ^= bits.max(1);
    }

    proptest! {
        #[test]
        fn a_changed_byte_never_decrypts(
            plain in prop::collection::vec(any::<u8>(), 0..300),
            at in any::<usize>(),
            bits in any::<u8>(),
        ) {
            let mut out = Vec::new();
            let c = secretbox::Cipher::new(&key(32)).unwrap();
            c.seal(&plain, &mut out).unwrap();
            flip(&mut out, at, bits);
            prop_assert!(c.open(&out).is_err());
            for k in [16, 24, 32].map(key) {
                let c = aesgcm::Cipher::new(&k).unwrap();
                let mut out = Vec::new();
                c.seal(PATH, &plain, &mut out).unwrap();
                flip(&mut out, at, bits);
                prop_assert!(c.open(PATH, &out).is_err());
            }
            let c = DataKey::new(SourceType::HkdfSeed, &key(32)).unwrap();
            let mut out = c.seal(PATH, &plain).unwrap();
            flip(&mut out, at, bits);
            prop_assert!(c.open(PATH, &out).is_err());
        }

        #[test]
        fn a_cut_value_never_decrypts(
            plain in prop::collection::vec(any::<u8>(), 0..300),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut out = Vec::new();
            let c = secretbox::Cipher::new(&key(32)).unwrap();
            c.seal(&plain, &mut out).unwrap();
            prop_assert!(c.open(&out[..cut.index(out.len())]).is_err());
            let c = aesgcm::Cipher::new(&key(24)).unwrap();
            let mut out = Vec::new();
            c.seal(PATH, &plain, &mut out).unwrap();
            prop_assert!(c.open(PATH, &out[..cut.index(out.len())]).is_err());
        }

        #[test]
        fn another_etcd_key_never_decrypts(
            plain in prop::collection::vec(any::<u8>(), 0..100),
            path in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            prop_assume!(path != PATH);
            let c = aesgcm::Cipher::new(&key(32)).unwrap();
            let mut out = Vec::new();
            c.seal(PATH, &plain, &mut out).unwrap();
            prop_assert!(c.open(&path, &out).is_err());
        }

        #[test]
        fn another_key_never_decrypts(
            plain in prop::collection::vec(any::<u8>(), 0..100),
            other in prop::collection::vec(any::<u8>(), 32),
        ) {
            let other = KeyMaterial::new(other);
            prop_assume!(!other.same(&key(32)));
            let mut out = Vec::new();
            secretbox::Cipher::new(&key(32)).unwrap().seal(&plain, &mut out).unwrap();
            prop_assert!(secretbox::Cipher::new(&other).unwrap().open(&out).is_err());
            let mut out = Vec::new();
            aesgcm::Cipher::new(&key(32)).unwrap().seal(PATH, &plain, &mut out).unwrap();
            prop_assert!(aesgcm::Cipher::new(&other).unwrap().open(PATH, &out).is_err());
            let data =
                DataKey::new(SourceType::HkdfSeed, &key(32)).unwrap().seal(PATH, &plain).unwrap();
            let other = DataKey::new(SourceType::HkdfSeed, &other).unwrap();
            prop_assert!(other.open(PATH, &data).is_err());
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let _ = Object::parse(&bytes);
            if let Ok(payload) = kms_v1::Payload::parse(&bytes) {
                prop_assert!(payload.open(&key(32), PATH).is_err());
            }
            prop_assert!(secretbox::Cipher::new(&key(32)).unwrap().open(&bytes).is_err());
            prop_assert!(aesgcm::Cipher::new(&key(24)).unwrap().open(PATH, &bytes).is_err());
            let _ = aescbc::Cipher::new(&key(24)).unwrap().open(&bytes);
        }

        #[test]
        fn messages_encode_to_what_decodes(
            data in prop::collection::vec(any::<u8>(), 1..300),
            key_id in "[a-z]{1,40}",
            source in prop::collection::vec(any::<u8>(), 1..200),
            notes in prop::collection::btree_map(
                "[a-z]{1,5}\\.[a-z]{1,5}", prop::collection::vec(any::<u8>(), 0..20), 0..4),
        ) {
            let object = Object {
                data: &data,
                key_id: &key_id,
                source: &source,
                annotations: notes.iter().map(|(n, v)| (n.as_str(), &v[..])).collect(),
                source_type: SourceType::HkdfSeed,
            };
            let mut out = Vec::new();
            object.encode(&mut out).unwrap();
            prop_assert!(Object::parse(&out).unwrap() == object);
        }
    }
}
