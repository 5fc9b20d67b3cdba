//! The age file around an escrow.
//!
//! Source: <https://c2sp.org/age>; the format is the `age` crate's to write and read.

use std::io::{self, Read as _, Write as _};
use std::str::FromStr as _;

use age::armor::{ArmoredWriter, Format};
use age::{Encryptor, x25519};
use zeroize::Zeroizing;

use super::{Document, EscrowError};
use crate::agefile::{Sealed, Unlock, is_age};

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

/// Whether one of the identities is the other half of one of the recipients.
#[must_use]
pub fn opens_what_is_for(unlock: &Unlock, recipients: &[Recipient]) -> bool {
    let own = unlock.recipients();
    recipients.iter().any(|r| own.contains(&r.to_string()))
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
pub fn open(bytes: &[u8], unlock: &Unlock) -> Result<Document, EscrowError> {
    if !is_age(bytes) {
        return Err(EscrowError::NotAge);
    }
    let mut reader = unlock.open(bytes, bytes).map_err(|sealed| match sealed {
        Sealed::Locked | Sealed::NotForThese => EscrowError::NotForThese,
        Sealed::Passphrase => EscrowError::Passphrase,
        Sealed::Damaged => EscrowError::Damaged,
    })?;
    // Never grown, so that no copy is left behind: what is encrypted is longer.
    let mut plain = Zeroizing::new(Vec::with_capacity(bytes.len() + 1));
    reader.read_to_end(&mut plain).map_err(|_| EscrowError::Damaged)?;
    Document::read(&plain)
}
