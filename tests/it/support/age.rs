//! Throwaway key pairs of age, and files that are encrypted to them.

use std::io::Write as _;
use std::path::PathBuf;

use age::armor::{ArmoredWriter, Format};
use age::secrecy::ExposeSecret as _;

/// An identity in a file, and its recipient.
pub struct Pair {
    dir: tempfile::TempDir,
    recipient: age::x25519::Recipient,
}

impl Pair {
    pub fn new() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let (dir, identity) = (tempfile::tempdir().unwrap(), age::x25519::Identity::generate());
        let this = Self { dir, recipient: identity.to_public() };
        std::fs::write(this.file(), identity.to_string().expose_secret()).unwrap();
        std::fs::set_permissions(this.file(), std::fs::Permissions::from_mode(0o600)).unwrap();
        this
    }

    /// Where the identity is.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("identity.txt")
    }

    /// Its recipient.
    pub fn public(&self) -> String {
        self.recipient.to_string()
    }

    /// As `age -r RECIPIENT` writes it.
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        sealed(&self.recipient, plain, Format::Binary)
    }

    /// As `age -a -r RECIPIENT` writes it.
    pub fn seal_as_text(&self, plain: &[u8]) -> Vec<u8> {
        sealed(&self.recipient, plain, Format::AsciiArmor)
    }
}

/// As `age -p` writes it.
pub fn with_passphrase(plain: &[u8]) -> Vec<u8> {
    let mut recipient = age::scrypt::Recipient::new("secret".to_owned().into());
    recipient.set_work_factor(2);
    sealed(&recipient, plain, Format::Binary)
}

fn sealed(to: &dyn age::Recipient, plain: &[u8], format: Format) -> Vec<u8> {
    let encryptor = age::Encryptor::with_recipients(std::iter::once(to)).unwrap();
    let armored = ArmoredWriter::wrap_output(Vec::new(), format).unwrap();
    let mut out = encryptor.wrap_output(armored).unwrap();
    out.write_all(plain).unwrap();
    out.finish().unwrap().finish().unwrap()
}
