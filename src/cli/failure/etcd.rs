//! What to do about an etcd that cannot be read.

use std::io;

use crate::resource::DEFAULT_PREFIX;
use crate::source::{
    EtcdError, KeyRange, MemberStory, Story, TlsFileError, TlsStory, Untrue, Wish,
};

const CLUSTER_HEALTH: &str = "see which members answer and have a leader: etcdctl endpoint status --endpoints with all of them";
const GIVE_CA: &str =
    "give etcd's CA with --cacert; kubeadm keeps it in /etc/kubernetes/pki/etcd/ca.crt";
const GIVE_CLIENT: &str =
    "give --cert and --key; kubeadm: /etc/kubernetes/pki/apiserver-etcd-client.crt and .key";
const MORE_TIME: &str = "check that the member is healthy; --command-timeout gives it more time";
const SLOW_LINK: &str = "the link is slow: --command-timeout gives an answer more time; or read a snapshot (etcdctl snapshot save)";
const AGAIN_OR_SNAPSHOT: &str = "run it again, or read a snapshot (etcdctl snapshot save)";

pub(super) fn etcd(e: &EtcdError) -> Option<String> {
    let hint = match e {
        EtcdError::Member(story) => return member(story),
        EtcdError::NoMember(trials) => return trials.iter().find_map(member),
        EtcdError::Tls(e) => return tls_file(e).map(str::to_owned),
        EtcdError::NoEndpoint => "name an etcd member, such as --endpoints https://127.0.0.1:2379",
        EtcdError::Endpoint { .. } => {
            "write host:port, http://host:port, https://host:port or unix:///path"
        }
        EtcdError::Denied { wish: Wish::Read(range), .. } => return Some(grant(range)),
        EtcdError::Denied { wish: Wish::Write, .. } => {
            return Some(grant_to_write(&[DEFAULT_PREFIX]));
        }
        EtcdError::Denied { wish: Wish::Snapshot, .. } => {
            "only users with the role root may save a snapshot (etcdctl user grant-role NAME root)"
        }
        EtcdError::Malformed(_) => {
            "check that the endpoint is an etcd and not a proxy that changes messages"
        }
        EtcdError::Untrue { what: Untrue::Clusters(_), .. } => {
            "name the members of one cluster with --endpoints"
        }
        EtcdError::Untrue { what: Untrue::WentBack { .. }, .. } => {
            "the cluster was restored from a backup or has lost writes: run it again to read what it holds now"
        }
        EtcdError::Untrue { .. } => {
            "check that the endpoint is an etcd and not a proxy that changes messages; a member's own files are read with --snapshot or --data-dir"
        }
        EtcdError::Incomplete { .. } => {
            "check that the endpoint is an etcd; the database behind k3s's kine is read with --kine"
        }
        EtcdError::WatchCanceled { denied: true, .. } => {
            "the user needs the right to read the watched keys"
        }
        EtcdError::BrokeOff { why, .. } => return etcd(why),
        EtcdError::HistoryCut(_) => AGAIN_OR_SNAPSHOT,
        EtcdError::BackupIncomplete => "run it again",
        EtcdError::Runtime(_)
        | EtcdError::Closed
        | EtcdError::Interrupted(_)
        | EtcdError::WatchEnded
        | EtcdError::WatchCanceled { .. }
        | EtcdError::BackupUnwritable(_)
        | EtcdError::TooLarge(_) => return None,
    };
    Some(hint.to_owned())
}

/// The grant that lets a user read a range.
fn grant(range: &KeyRange) -> String {
    let what = match (range.as_prefix(), &range.end) {
        (Some(prefix), _) => format!("--prefix=true {}", quoted(prefix)),
        (None, Some(end)) if *end == [&range.start[..], &[0]].concat() => quoted(&range.start),
        (None, Some(end)) => format!("{} {}", quoted(&range.start), quoted(end)),
        (None, None) => format!("--from-key=true {}", quoted(&range.start)),
    };
    format!(
        "etcdctl role grant-permission ROLE read {what} allows it; or narrow --resource to what is allowed"
    )
}

/// The grants that let a user write what lies under these prefixes.
#[must_use]
pub fn grant_to_write(bases: &[impl AsRef<str>]) -> String {
    let one = |base: &str| {
        let base = quoted(base.as_bytes());
        format!("etcdctl role grant-permission ROLE readwrite --prefix=true {base} allows it")
    };
    bases.iter().map(|base| one(base.as_ref())).collect::<Vec<_>>().join("; ")
}

/// A key as a shell reads it.
fn quoted(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("{text:?}") }
}

/// The words of an error, where the command line has better ones: its options.
pub(super) fn words(e: &EtcdError) -> Option<&'static str> {
    match e {
        EtcdError::Tls(TlsFileError::KeyMissing) => Some("--cert is given without --key"),
        EtcdError::Tls(TlsFileError::CertificateMissing) => Some("--key is given without --cert"),
        _ => None,
    }
}

fn member(told: &MemberStory) -> Option<String> {
    let with = |from, to| told.member.replacen(from, to, 1);
    let http = || with("https://", "http://");
    let https = || with("http://", "https://");
    let hint = match &told.story {
        Story::NoAnswer(_) => MORE_TIME,
        Story::Unfinished(_) => SLOW_LINK,
        Story::Resolve(_) | Story::ServerName => {
            "check the spelling of --endpoints, or give an address"
        }
        Story::Refused => "check that etcd runs and listens there (its --listen-client-urls)",
        Story::NoSocket => "check the path and that etcd runs",
        Story::SocketDenied => "run as a user who may use it, usually root",
        Story::Connect(_) => "check the address and the network",
        Story::DialTimeout(_) => {
            "check address, port and firewall; --dial-timeout gives it more time"
        }
        Story::HandshakeTimeout(_) => {
            return Some(format!(
                "check that the member is healthy; if the port does not speak TLS, try {}",
                http()
            ));
        }
        Story::HandshakeClosed(_) | Story::Tls(TlsStory::NotSpoken) => {
            return Some(format!("the port may not speak TLS: try {}", http()));
        }
        Story::Tls(e) => tls(e),
        Story::SpeaksTls | Story::Mute => {
            return Some(format!("try {} with --cacert, --cert and --key", https()));
        }
        Story::NotGrpc => {
            return Some(format!(
                "if it is etcd with TLS, try {} with --cacert, --cert and --key",
                https()
            ));
        }
        Story::ClosedAfterHandshake => GIVE_CLIENT,
        Story::Lost(_) => "check that the member is healthy; further --endpoints can take over",
        Story::Password(_) => {
            "check --user and the password, also in ETCDCTL_USER and ETCDCTL_PASSWORD"
        }
        Story::UserDemanded => {
            "give --user NAME with --password-file FILE (on a terminal it is asked for), or a client certificate whose common name is an etcd user"
        }
        Story::Denied(_) => "the user needs a role that allows it",
        Story::Future => super::file::NOT_REACHED,
        Story::Token | Story::TokenRefused => {
            "check the server's --auth-token setting and the clocks"
        }
        Story::Learner => "name a voting member with --endpoints",
        Story::NoLeader(_) | Story::Unhealthy(_) => CLUSTER_HEALTH,
        Story::NotEtcd(_) => "check the port of --endpoints",
        Story::Corrupt(_) => {
            "see etcdctl alarm list; read a member's files with --data-dir or a --snapshot instead"
        }
        Story::Other(_) => return None,
    };
    Some(hint.to_owned())
}

fn tls(e: &TlsStory) -> &'static str {
    match e {
        TlsStory::UnknownIssuer(_) => GIVE_CA,
        TlsStory::WrongName(_) => "use a name or address that is in the certificate",
        TlsStory::Expired => "renew etcd's server certificate, and check this machine's clock",
        TlsStory::NotValidYet => "check this machine's clock",
        TlsStory::Purpose => {
            "have etcd's server certificate issued anew with the extended key usage serverAuth"
        }
        TlsStory::Authority(_) => {
            "give that very certificate with --cacert, or have etcd's server certificate signed by the CA that you give"
        }
        TlsStory::Unsupported(_) => {
            "have etcd's server certificate issued anew, by a CA like it: an RSA key of 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519, signed with SHA-256 or SHA-384"
        }
        TlsStory::Unacceptable(_) => {
            "have etcd's server certificate issued anew, as X.509 version 3 with a subject alternative name"
        }
        TlsStory::NoOffer => {
            "etcd's server certificate needs an RSA key of 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519, and etcd must speak TLS 1.2 with ECDHE or TLS 1.3; its log says why"
        }
        TlsStory::ClientDemanded => GIVE_CLIENT,
        TlsStory::Alert(_) => "the etcd log says why",
        TlsStory::ClientOutdated { .. } => {
            "renew it (kubeadm certs renew apiserver-etcd-client), or check the clocks"
        }
        TlsStory::ClientRejected { .. } => {
            "it must be signed by the server's --trusted-ca-file and allow client authentication; the etcd log says why"
        }
        TlsStory::NotSpoken => "the port may not speak TLS: try http://",
        TlsStory::NothingInCommon(_) => {
            "etcd's --cipher-suites and --tls-max-version must allow TLS 1.2 with ECDHE or TLS 1.3"
        }
        TlsStory::Other(_) => "check the certificates of both sides",
    }
}

pub(super) fn tls_file(e: &TlsFileError) -> Option<&'static str> {
    Some(match e {
        TlsFileError::Setup(_) => return None,
        TlsFileError::Unreadable { cause, .. } => match cause.kind() {
            io::ErrorKind::PermissionDenied => "run as a user who may read it, usually root",
            io::ErrorKind::NotFound => "check the path",
            _ => "it must be a readable PEM file",
        },
        TlsFileError::Damaged { .. } => "a certificate begins with -----BEGIN CERTIFICATE-----",
        TlsFileError::NoCertificate { .. } => {
            "a PEM file with -----BEGIN CERTIFICATE----- is needed"
        }
        TlsFileError::NoAuthority { .. } => "give the CA that signed the etcd server's certificate",
        TlsFileError::Passphrase { .. } => {
            "etcd clients need an unprotected key; openssl pkey removes the passphrase"
        }
        TlsFileError::NoKey { .. } => "a PEM file in PKCS#8, PKCS#1 or SEC1 form is needed",
        TlsFileError::Mismatch { .. } => "give --cert and --key of the same pair",
        TlsFileError::Unsupported { .. } | TlsFileError::Unusable { .. } => {
            "supported are RSA keys of 2048 to 8192 bits, ECDSA P-256 and P-384, and Ed25519"
        }
        TlsFileError::KeyMissing => "a client certificate is used together with its private key",
        TlsFileError::CertificateMissing => "a client key is used together with its certificate",
    })
}
