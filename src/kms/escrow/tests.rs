use super::*;
use crate::agefile::{Identities, Unlock};

const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

/// A throwaway key pair.
fn pair() -> (Unlock, Recipient) {
    let identity = age::x25519::Identity::generate();
    let text = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
    let file = format!("# created: today\n# public key: x\n\n  {text}\r\n");
    let recipient = Recipient::parse(&format!(" {} ", identity.to_public())).unwrap();
    (Unlock::with(Identities::parse(file.as_bytes()).unwrap()), recipient)
}

fn name(source: &[u8]) -> Name {
    let annotations: [(&str, &[u8]); 2] = [("a.example.com", b"\x00\xff"), ("b.example.com", b"")];
    Name::v2("vault\u{1b}", WrappedKey { key_id: "kek \"1\"", source, annotations: &annotations })
}

fn document() -> Document {
    let kept = |name, byte| Kept {
        name,
        kind: Some("seed".into()),
        key: KeyMaterial::new(vec![byte; 32]),
        entries: 3,
        history_entries: None,
    };
    Document {
        created: "2026-01-01T00:00:00Z".to_owned(),
        source: ("snapshot".to_owned(), "a \\ b".to_owned(), 7),
        keys: vec![kept(name(b"s"), 0xfb), kept(Name::v1("v", b"w"), 9)],
        missing: vec![Missing {
            name: name(b"gone"),
            entries: 1,
            history_entries: Some(2),
            reason: "refused".to_owned(),
        }],
    }
}

fn sealed(to: &[Recipient], armor: bool) -> Vec<u8> {
    seal(&document(), Sealing { recipients: to, armor }).unwrap()
}

#[test]
fn what_is_kept_comes_back() {
    let ((one, to_one), (two, to_two)) = (pair(), pair());
    for armor in [false, true] {
        let file = sealed(&[to_one.clone(), to_two.clone()], armor);
        assert_eq!(file.starts_with(b"-----BEGIN AGE"), armor);
        for identities in [&one, &two] {
            let back = open(&file, identities).unwrap();
            assert_eq!(back.created, "2026-01-01T00:00:00Z");
            assert_eq!(back.source.1, "a \\ b");
            assert_eq!(back.missing[0].name, name(b"gone"));
            assert_eq!(
                (back.missing[0].history_entries, &*back.missing[0].reason),
                (Some(2), "refused")
            );
            let mut escrow = Escrow::default();
            escrow.add(back);
            let annotations: [(&str, &[u8]); 2] =
                [("a.example.com", b"\x00\xff"), ("b.example.com", b"")];
            let wrapped =
                WrappedKey { key_id: "kek \"1\"", source: b"s", annotations: &annotations };
            assert!(escrow.v2("vault\u{1b}", wrapped).unwrap().expose() == [0xfb; 32]);
            assert!(escrow.v1("v", b"w").unwrap().expose() == [9; 32]);
            // Whatever the plugin is handed tells keys apart.
            assert!(escrow.v2("vault", wrapped).is_none());
            assert!(escrow.v2("vault\u{1b}", WrappedKey { key_id: "k", ..wrapped }).is_none());
            assert!(escrow.v2("vault\u{1b}", WrappedKey { annotations: &[], ..wrapped }).is_none());
            assert!(escrow.v1("v", b"x").is_none());
            assert_eq!(escrow.providers(), ["v", "vault\u{1b}"]);
        }
    }
    assert!(opens_what_is_for(&one, &[to_two.clone(), to_one]));
    assert!(!opens_what_is_for(&one, &[to_two]));
}

#[test]
fn nothing_of_a_key_is_outside() {
    let file = sealed(&[pair().1], false);
    for form in [&[0xfb; 8][..], b"+/v7+/v7", b"fbfbfbfb", b"vault", b"seed"] {
        assert!(memchr::memmem::find(&file, form).is_none());
    }
}

#[test]
fn others_and_damaged_files_do_not_open() {
    let ((one, to_one), (two, _)) = (pair(), pair());
    for armor in [false, true] {
        let file = sealed(std::slice::from_ref(&to_one), armor);
        assert!(matches!(open(&file, &two), Err(EscrowError::NotForThese)));
        // Wherever it is cut, nothing comes out of it; text need not end its last line.
        for at in 0..file.len() - usize::from(armor) {
            assert!(open(&file[..at], &one).is_err(), "cut at {at}");
        }
        for at in (0..file.len()).step_by(7).filter(|_| !armor) {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(open(&changed, &one).is_err(), "changed at {at}");
        }
    }
    assert!(matches!(open(b"anything", &one), Err(EscrowError::NotAge)));
    assert!(matches!(
        seal(&document(), Sealing { recipients: &[], armor: false }),
        Err(EscrowError::NoRecipients)
    ));
}

#[test]
fn other_documents_are_none_and_are_not_quoted() {
    let secret = "c2VjcmV0c2VjcmV0";
    for text in [
        String::new(),
        format!("{{\"schema\":\"atrest.kms-escrow/v2\",\"key\":\"{secret}\"}}"),
        format!("{{\"schema\":\"atrest.kms-escrow/v1\",\"keys\":[{{\"key\":\"{secret}\"}}]}}"),
        format!("{secret}\n"),
    ] {
        let error = Document::read(text.as_bytes()).err().unwrap().to_string();
        assert!(!error.contains(secret), "{error}");
    }
}

#[test]
fn recipients_say_what_is_wrong() {
    let recipient = |text: &str| Recipient::parse(text).err().unwrap().to_string();
    let own = pair().1.to_string();
    for (text, says) in [
        ("bob", "begins with age1"),
        (&own[..own.len() - 1], "a character is wrong"),
        ("ssh-ed25519 AAAA", "keys of SSH"),
        (&format!("age1pq1{}", "q".repeat(100)), "post-quantum"),
    ] {
        assert!(recipient(text).contains(says), "{text}");
    }
    let secret = recipient(IDENTITY);
    assert!(secret.contains("the secret half") && !secret.contains("GFPYYSJZ"), "{secret}");
}
