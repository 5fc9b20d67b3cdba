use std::io::{Read as _, Write as _};

use age::armor::{ArmoredWriter, Format};
use age::secrecy::ExposeSecret as _;

use super::*;

const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

/// A throwaway identity, and whom to encrypt to.
pub(crate) fn pair() -> (Unlock, age::x25519::Recipient) {
    let identity = age::x25519::Identity::generate();
    let text = identity.to_string().expose_secret().to_owned();
    (Unlock::with(Identities::parse(text.as_bytes()).unwrap()), identity.to_public())
}

fn written(encryptor: age::Encryptor, plain: &[u8], format: Format) -> Vec<u8> {
    let armored = ArmoredWriter::wrap_output(Vec::new(), format).unwrap();
    let mut out = encryptor.wrap_output(armored).unwrap();
    out.write_all(plain).unwrap();
    out.finish().unwrap().finish().unwrap()
}

/// As `age -r` writes it, or `age -a -r`.
pub(crate) fn sealed(to: &age::x25519::Recipient, armor: bool, plain: &[u8]) -> Vec<u8> {
    let recipients = std::iter::once(to as &dyn age::Recipient);
    let format = if armor { Format::AsciiArmor } else { Format::Binary };
    written(age::Encryptor::with_recipients(recipients).unwrap(), plain, format)
}

fn open(unlock: &Unlock, file: &[u8]) -> Result<std::io::Result<Vec<u8>>, Sealed> {
    let mut reader = unlock.open(file, file)?;
    let mut plain = Vec::new();
    Ok(reader.read_to_end(&mut plain).map(|_| plain))
}

#[test]
fn what_was_encrypted_comes_back_and_says_who_opened_it() {
    let ((one, to_one), (two, _)) = (pair(), pair());
    let plain: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
    for armor in [false, true] {
        let file = sealed(&to_one, armor, &plain);
        assert!(is_age(&file));
        assert_eq!(open(&two, &file).unwrap_err(), Sealed::NotForThese);
        assert_eq!(open(&Unlock::default(), &file).unwrap_err(), Sealed::Locked);
        assert!(!two.was_used());
        assert_eq!(one.was_used(), armor, "the first round has used it");
        assert_eq!(open(&one, &file).unwrap().unwrap(), plain);
        assert!(one.clone().was_used());
        // Cut in its header it is not opened, later what is read does not end well.
        for at in [30, 100, file.len() / 2, file.len() - 40] {
            let read = open(&one, &file[..at]);
            assert!(read.is_err() || read.unwrap().is_err(), "cut at {at}");
        }
    }
    assert!(is_age(b"\n-----BEGIN AGE ENCRYPTED FILE-----\n"));
    assert!(!is_age(b"AGE"));
}

#[test]
fn a_passphrase_is_named() {
    let mut recipient = age::scrypt::Recipient::new("secret".to_owned().into());
    recipient.set_work_factor(2);
    let recipients = std::iter::once(&recipient as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).unwrap();
    let file = written(encryptor, b"plain", Format::Binary);
    assert_eq!(open(&Unlock::default(), &file).unwrap_err(), Sealed::Passphrase);
    assert_eq!(open(&pair().0, &file).unwrap_err(), Sealed::Passphrase);
}

/// Endless where memory would be taken for what is read.
#[test]
fn an_endless_header_ends() {
    let unlock = pair().0;
    for (begin, armored) in [
        (&b"age-encryption.org/v1\n-> X25519 "[..], false),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n", true),
    ] {
        let endless = begin.chain(std::io::repeat(b'a'));
        assert_eq!(unlock.open(begin, endless).err(), Some(Sealed::Damaged), "{armored}");
    }
    let stanzas = std::iter::repeat_n(&b"-> X25519 a\naaaa\n"[..], 100_000);
    let many: Vec<u8> = std::iter::once(&b"age-encryption.org/v1\n"[..])
        .chain(stanzas)
        .flatten()
        .copied()
        .collect();
    assert_eq!(open(&unlock, &many).unwrap_err(), Sealed::Damaged);
}

#[test]
fn identities_say_what_is_wrong_and_are_not_shown() {
    let identity = |text: &str| Identities::parse(text.as_bytes()).err().unwrap().to_string();
    assert_eq!(identity("# nothing\n\n"), "it holds no age identity");
    let own = pair().1.to_string();
    assert_eq!(
        identity(&format!("#\n{own}")),
        "line 2 is no age identity: it is the public half, a recipient"
    );
    let wrong = identity(&IDENTITY.replace("4EGAEX", "4EGAEY"));
    assert!(wrong.ends_with("a character is wrong or missing"), "{wrong}");
    assert!(identity("age-encryption.org/v1\n").contains("themselves encrypted"));
    assert!(identity("-----BEGIN AGE ENCRYPTED FILE-----\n").contains("themselves encrypted"));
    assert!(identity("AGE-PLUGIN-YUBIKEY-1X").contains("plugins"));
    let unlock = Unlock::with(Identities::parse(IDENTITY.as_bytes()).unwrap());
    assert_eq!(format!("{unlock:?}"), "Unlock { given: true }");
}
