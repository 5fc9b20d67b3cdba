//! The age file around an escrow.
//!
//! Source: <https://c2sp.org/age>; the format is the `age` crate's to write and read.

use std::io::{self, Read as _, Write as _};
use std::str::FromStr as _;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::{DecryptError, Decryptor, Encryptor, x25519};
use zeroize::Zeroizing;

use super::{Document, EscrowError};

/// What an age file in text begins with.
const ARMOR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
/// What an age file begins with.
const MAGIC: &[u8] = b"age-encryption.org/";

/// Who can read an escrow: a public key.
#[derive(Clone)]
pub struct Recipient(x25519::Recipient);

impl Recipient {
    /// Of its text, `age1…`.
    ///
    /// # Errors
    /// When it is none, or of a kind that this version cannot encrypt to.
    pub fn parse(text: &str) -> Result<Self, EscrowError> {
        let text = text.trim();
        // Whoever gives the wrong half of a key pair has it in a shell's history already.
        let is_secret = text.get(..14).is_some_and(|t| t.eq_ignore_ascii_case("AGE-SECRET-KEY"));
        if is_secret {
            let text = "AGE-SECRET-KEY-…".to_owned();
            return Err(EscrowError::Recipient { text, why: "it is the secret half, an identity" });
        }
        let why = match x25519::Recipient::from_str(text) {
            Ok(recipient) => return Ok(Self(recipient)),
            Err(_) if text.starts_with("ssh-") => "keys of SSH are not supported",
            Err(_) if text.starts_with("age1") && text.len() > 70 => {
                "recipients of plugins and post-quantum ones are not supported"
            }
            Err(_) if text.starts_with("age1") => "a character is wrong or missing",
            Err(_) => "one begins with age1",
        };
        Err(EscrowError::Recipient { text: text.to_owned(), why })
    }
}

impl std::fmt::Display for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Secret keys that open escrows.
pub struct Identities(Vec<x25519::Identity>);

impl Identities {
    /// Of a file as `age-keygen` writes it: one a line, comments begin with `#`.
    ///
    /// # Errors
    /// When there is none, or something else.
    pub fn parse(bytes: &[u8]) -> Result<Self, EscrowError> {
        if bytes.starts_with(MAGIC) || bytes.trim_ascii_start().starts_with(ARMOR) {
            return Err(EscrowError::EncryptedIdentity);
        }
        let mut all = Vec::new();
        for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let wrong = |why| EscrowError::Identity { line: i + 1, why };
            let text = std::str::from_utf8(line).map_err(|_| wrong("it is no text"))?;
            let identity = x25519::Identity::from_str(text).map_err(|_| {
                wrong(match text.as_bytes() {
                    [b'a', b'g', b'e', b'1', ..] => "it is the public half, a recipient",
                    t if t.starts_with(b"AGE-PLUGIN-") => "those of plugins are not supported",
                    t if t.starts_with(b"AGE-SECRET-KEY-PQ-") => {
                        "post-quantum ones are not supported"
                    }
                    t if t.starts_with(b"AGE-SECRET-KEY-1") => "a character is wrong or missing",
                    _ => "one begins with AGE-SECRET-KEY-1",
                })
            })?;
            all.push(identity);
        }
        if all.is_empty() { Err(EscrowError::NoIdentity) } else { Ok(Self(all)) }
    }

    /// Adds those of another file.
    pub fn join(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether one of them is the other half of one of these.
    #[must_use]
    pub fn open_what_is_for(&self, recipients: &[Recipient]) -> bool {
        let own: Vec<String> = self.0.iter().map(|i| i.to_public().to_string()).collect();
        recipients.iter().any(|r| own.contains(&r.to_string()))
    }
}

/// How an escrow is encrypted.
#[derive(Clone, Copy)]
pub struct Sealing<'a> {
    /// To whom.
    pub recipients: &'a [Recipient],
    /// As text.
    pub armor: bool,
}

/// Encrypts a document: the bytes of the file.
///
/// # Errors
/// When there is no recipient, or the system gives no random bytes.
pub fn seal(document: &Document, sealing: Sealing<'_>) -> Result<Vec<u8>, EscrowError> {
    let recipients = sealing.recipients.iter().map(|r| &r.0 as &dyn age::Recipient);
    let encryptor = Encryptor::with_recipients(recipients).map_err(|e| match e {
        age::EncryptError::MissingRecipients => EscrowError::NoRecipients,
        other => EscrowError::Write(io::Error::other(other.to_string())),
    })?;
    let format = if sealing.armor { Format::AsciiArmor } else { Format::Binary };
    let write = || {
        let armored = ArmoredWriter::wrap_output(Vec::new(), format)?;
        let mut out = encryptor.wrap_output(armored)?;
        document.write(&mut out)?;
        out.flush()?;
        out.finish()?.finish()
    };
    write().map_err(EscrowError::Write)
}

/// Decrypts a document.
///
/// # Errors
/// When it is no escrow, for others, or damaged.
pub fn open(bytes: &[u8], identities: &Identities) -> Result<Document, EscrowError> {
    if !bytes.starts_with(MAGIC) && !bytes.trim_ascii_start().starts_with(ARMOR) {
        return Err(EscrowError::NotAge);
    }
    let decryptor = Decryptor::new_buffered(ArmoredReader::new(bytes)).map_err(|e| failed(&e))?;
    if decryptor.is_scrypt() {
        return Err(EscrowError::Passphrase);
    }
    let identities = identities.0.iter().map(|i| i as &dyn age::Identity);
    let mut reader = decryptor.decrypt(identities).map_err(|e| failed(&e))?;
    // Never grown, so that no copy is left behind: what is encrypted is longer.
    let mut plain = Zeroizing::new(Vec::with_capacity(bytes.len() + 1));
    reader.read_to_end(&mut plain).map_err(|_| EscrowError::Damaged)?;
    Document::read(&plain)
}

fn failed(error: &DecryptError) -> EscrowError {
    match error {
        DecryptError::NoMatchingKeys => EscrowError::NotForThese,
        DecryptError::UnknownFormat => EscrowError::NotAge,
        _ => EscrowError::Damaged,
    }
}
