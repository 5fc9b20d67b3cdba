//! Escrows of KMS data keys.

use std::path::{Path, PathBuf};

use super::{private, providers, says};
use crate::support::bin::{Bin, bin};
use crate::support::corpus;
use crate::support::plugs::Plugs;

/// The plugins of the corpus, and a throwaway key pair of age.
struct Rig {
    plugs: Plugs,
    dir: tempfile::TempDir,
    public: String,
}

impl Rig {
    fn new() -> Self {
        let (plugs, dir) = (Plugs::start("kek-2026-02"), tempfile::tempdir().unwrap());
        let public = Self::identity(&dir, "identity.txt");
        Self { plugs, dir, public }
    }

    /// A file with a new identity; returns its recipient.
    fn identity(dir: &tempfile::TempDir, name: &str) -> String {
        use age::secrecy::ExposeSecret as _;
        let identity = age::x25519::Identity::generate();
        private(dir, name, identity.to_string().expose_secret());
        identity.to_public().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn from(&self, words: &str) -> Bin {
        let bin = bin().words(words).arg("--snapshot").arg(corpus::db("p5-kmsv2"));
        bin.arg("--encryption-config").arg(self.plugs.config("p5-kmsv2"))
    }

    fn keep(&self, to: &str) -> Bin {
        self.from("kms escrow").arg("--to").arg(to)
    }

    fn read(&self, escrow: &Path, identity: &str) -> Bin {
        let bin = self.from("scan --verify").arg("--kms-escrow").arg(escrow);
        bin.arg("--identity").arg(self.path(identity))
    }
}

#[test]
fn keeping() {
    let rig = Rig::new();
    let file = rig.path("escrow.age");
    let keep = |to: &str| rig.keep(to).arg("--out").arg(&file);
    says("give the line that `age-keygen -y FILE` prints, age1…")
        .helps(&keep("bob").run(), |_| keep(&rig.public).run());
    // The file is there now.
    says("give another --out, or --force to replace it")
        .helps(&keep(&rig.public).run(), |_| keep(&rig.public).arg("--force").run());
    says("give --out FILE, or --armor for text")
        .helps(&rig.keep(&rig.public).on_a_terminal(), |_| {
            rig.keep(&rig.public).arg("--armor").run()
        });
    Rig::identity(&rig.dir, "other.txt");
    let check = |identity: &str| {
        keep(&rig.public).arg("--force").arg("--identity").arg(rig.path(identity)).run()
    };
    says("give the secret half of {} with --identity FILE, or none")
        .helps(&check("other.txt"), |_| check("identity.txt"));
    let none = rig.keep(&rig.public).arg("--out").arg(rig.path("none"));
    let none = none.args(["--kms-exec=vault-v2=exit 1", "--kms-exec=vault-v1=exit 1"]).run();
    let says =
        says("`atrest kms check` asks the plugins; --kms-exec unwraps data keys without them");
    says.helps(&none, |_| {
        bin().words("kms check --encryption-config").arg(rig.plugs.config("p5-kmsv2")).run()
    });
}

#[test]
fn reading() {
    let rig = Rig::new();
    let file = rig.path("escrow.age");
    rig.keep(&rig.public).arg("--out").arg(&file).run().ok();
    Rig::identity(&rig.dir, "other.txt");
    says("give the secret half of one of its recipients with --identity FILE")
        .helps(&rig.read(&file, "other.txt").run(), |_| rig.read(&file, "identity.txt").run());
    let wrong = private(&rig.dir, "wrong", &providers("secrets", "identity: {}"));
    says("give what `atrest kms escrow` wrote with --kms-escrow FILE")
        .helps(&rig.read(&wrong, "identity.txt").run(), |_| rig.read(&file, "identity.txt").run());
}
