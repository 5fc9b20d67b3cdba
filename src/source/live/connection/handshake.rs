//! Why TLS fails with a member: what this side or the server says, and the certificates that were
//! shown → words.

use std::fmt::Debug;

use rustls::{AlertDescription as Alert, CertificateError, Error};
use rustls_pki_types::CertificateDer;

use super::tls::Tls;
use super::usable::{unusable, unusable_key, unusable_signature};
use crate::certificate::Certificate;
use crate::source::TlsStory;

/// What happened, where the server had `shown` this certificate before.
pub(super) fn story(
    tls: Option<&Tls>,
    shown: Option<&CertificateDer<'_>>,
    error: &Error,
) -> TlsStory {
    match error {
        Error::InvalidCertificate(e) => certificate(tls, shown, e),
        Error::AlertReceived(alert) => told(tls, shown.is_some(), *alert),
        Error::InvalidMessage(_) => TlsStory::NotSpoken,
        Error::PeerIncompatible(e) => TlsStory::NothingInCommon(spelled(e)),
        Error::PeerMisbehaved(e) => {
            TlsStory::Other(format!("the server breaks it: {}", spelled(e)))
        }
        Error::General(words) => TlsStory::Other(words.clone()),
        e => TlsStory::Other(spelled(e)),
    }
}

/// This side does not accept the server's certificate.
fn certificate(
    tls: Option<&Tls>,
    shown: Option<&CertificateDer<'_>>,
    error: &CertificateError,
) -> TlsStory {
    use CertificateError as E;
    let ca = || tls.and_then(|t| t.ca.clone());
    match error {
        E::UnknownIssuer => TlsStory::UnknownIssuer(ca()),
        // A signature by a key that is too short is one that does not fit.
        E::BadSignature => match shown.and_then(|shown| weak(tls, shown)) {
            Some(weak) => TlsStory::Unsupported(weak),
            None => TlsStory::UnknownIssuer(ca()),
        },
        E::NotValidForName => TlsStory::WrongName(Vec::new()),
        E::NotValidForNameContext { presented, .. } => {
            TlsStory::WrongName(presented.iter().map(|name| plain(name).to_owned()).collect())
        }
        E::Expired | E::ExpiredContext { .. } => TlsStory::Expired,
        E::NotValidYet | E::NotValidYetContext { .. } => TlsStory::NotValidYet,
        E::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, .. } => {
            let with = unusable_signature(signature_algorithm_id);
            TlsStory::Unsupported(format!("is signed with {with}"))
        }
        E::UnsupportedSignatureAlgorithmForPublicKeyContext { public_key_algorithm_id, .. } => {
            // Of the certificate, or of the handshake.
            TlsStory::Unsupported(shown.and_then(|shown| weak(tls, shown)).unwrap_or_else(|| {
                let key = unusable_key(public_key_algorithm_id);
                format!("is signed by a CA with {}", key.unwrap_or("a key that does not fit"))
            }))
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => TlsStory::Purpose,
        // webpki's own word (rustls-webpki `src/error.rs`).
        E::Other(e) if e.to_string() == "CaUsedAsEndEntity" => TlsStory::Authority(ca()),
        // So are all others of its words.
        E::Other(e) => TlsStory::Unacceptable(spelled(&e.0)),
        e => TlsStory::Unacceptable(spelled(e)),
    }
}

/// What makes the server's certificate, or that of the CA which signed it, unusable.
fn weak(tls: Option<&Tls>, shown: &CertificateDer<'_>) -> Option<String> {
    let leaf = Certificate::from_der(shown)?;
    if let Some(key) = unusable(&leaf) {
        return Some(format!("has {key}"));
    }
    let signers = tls?.given.iter().filter_map(|ca| Certificate::from_der(ca));
    let mut signers = signers.filter(|ca| leaf.names_as_issuer(ca));
    let key = signers.find_map(|ca| unusable(&ca))?;
    Some(format!("is signed by a CA with {key}"))
}

/// The server ended the handshake, before or after it had `shown` its certificate.
fn told(tls: Option<&Tls>, shown: bool, alert: Alert) -> TlsStory {
    let early = matches!(
        alert,
        Alert::HandshakeFailure | Alert::InsufficientSecurity | Alert::ProtocolVersion
    );
    if early && !shown {
        return TlsStory::NoOffer;
    }
    let of_client = matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::HandshakeFailure
            | Alert::AccessDenied
    );
    let Some((path, certificate)) = tls.and_then(|t| t.client.as_ref()) else {
        return if of_client {
            TlsStory::ClientDemanded
        } else {
            TlsStory::Alert(alert_words(alert))
        };
    };
    let reason = match alert {
        Alert::CertificateExpired => " as expired",
        Alert::UnknownCA => " as signed by an unknown CA",
        Alert::CertificateRevoked => " as revoked",
        Alert::UnsupportedCertificate => " as not for clients",
        Alert::CertificateUnknown | Alert::DecryptError => "",
        _ if of_client => "",
        alert => return TlsStory::Alert(alert_words(alert)),
    };
    let path = path.clone();
    if let Some(complaint) = certificate.as_ref().and_then(Certificate::complaint) {
        return TlsStory::ClientOutdated { path, complaint };
    }
    TlsStory::ClientRejected { path, reason }
}

/// A name of a certificate without what webpki's `Debug` puts around it.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}

/// What an alert is called; by its number, where it has no name.
fn alert_words(alert: Alert) -> String {
    match alert {
        Alert::Unknown(number) => format!("alert {number}"),
        known => spelled(&known),
    }
}

/// The name that a library's `Debug` begins with, in words: `NoKxGroupsInCommon` → `no kx groups
/// in common`.
fn spelled(value: &impl Debug) -> String {
    let mut words = String::new();
    let mut lower = false;
    for c in format!("{value:?}").chars().take_while(|c| c.is_alphanumeric()) {
        if c.is_uppercase() && lower {
            words.push(' ');
        }
        lower = c.is_lowercase() || c.is_ascii_digit();
        words.extend(c.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_libraries_are_words() {
        let of = |e: Error| spelled(&e);
        assert_eq!(of(Error::HandshakeNotComplete), "handshake not complete");
        let why = rustls::PeerIncompatible::NoKxGroupsInCommon;
        assert_eq!(spelled(&why), "no kx groups in common");
        assert_eq!(of(why.into()), "peer incompatible");
        assert_eq!(alert_words(Alert::UnrecognisedName), "unrecognised name");
        assert_eq!(alert_words(Alert::Unknown(200)), "alert 200");
        assert_eq!(alert_words(Alert::UnknownCA), "unknown ca");
        assert_eq!(plain("DnsName(\"etcd.example.com\")"), "etcd.example.com");
        assert_eq!(plain("IpAddress(192.0.2.1)"), "192.0.2.1");
    }
}
