//! Endpoints as etcdctl writes them.

use std::path::PathBuf;

use crate::source::EtcdError;

/// etcd's client port.
const PORT: u16 = 2379;

/// Where one member listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListenAddress {
    /// Name or address, without the brackets of IPv6, and port.
    Tcp(String, u16),
    /// Path of a socket.
    Unix(PathBuf),
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemberEndpoint {
    /// As messages name it: with its scheme.
    pub text: String,
    /// Whether to use TLS.
    pub secure: bool,
    /// Where to connect.
    pub place: ListenAddress,
}

impl MemberEndpoint {
    /// Reads an endpoint; `secure` is what one without a scheme uses (etcd `client/v3/internal/endpoint`).
    pub fn parse(text: &str, secure: bool) -> Result<Self, EtcdError> {
        let text = text.trim();
        let invalid =
            |why: &str| EtcdError::Endpoint { text: text.to_owned(), why: why.to_owned() };
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => match text.split_once(':') {
                Some((scheme @ ("unix" | "unixs"), rest)) => (scheme, rest),
                _ => ("", text),
            },
        };
        let secure = match scheme {
            "" => secure,
            "http" | "unix" => false,
            "https" | "unixs" => true,
            other => return Err(invalid(&format!("unknown scheme {other:?}"))),
        };
        if matches!(scheme, "unix" | "unixs") {
            if rest.is_empty() {
                return Err(invalid("the path is missing"));
            }
            let place = ListenAddress::Unix(PathBuf::from(rest));
            return Ok(Self { text: text.to_owned(), secure, place });
        }
        let rest = rest.split_once('/').map_or(rest, |(authority, _)| authority);
        let (host, port) = if let Some(inner) = rest.strip_prefix('[') {
            let (host, after) =
                inner.split_once(']').ok_or_else(|| invalid("a bracket is missing"))?;
            (host, after.strip_prefix(':'))
        } else {
            match rest.rsplit_once(':') {
                // Two colons without brackets are an IPv6 address without a port.
                Some((host, _)) if host.contains(':') => (rest, None),
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            }
        };
        if host.is_empty() || host.contains(['@', '?', '#', ' ']) {
            return Err(invalid("the host is missing or malformed"));
        }
        let port = match port {
            None => PORT,
            Some(port) => port.parse().map_err(|_| invalid("the port is no number"))?,
        };
        let shown = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let scheme = if secure { "https" } else { "http" };
        Ok(Self {
            text: format!("{scheme}://{shown}:{port}"),
            secure,
            place: ListenAddress::Tcp(host.to_owned(), port),
        })
    }

    /// The `:authority` of requests.
    pub fn authority(&self) -> String {
        match &self.place {
            ListenAddress::Tcp(..) => self.text.split_once("://").map_or("", |(_, a)| a).to_owned(),
            ListenAddress::Unix(_) => "localhost".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_etcdctl_reads_them() {
        let tcp = |text: &str, secure| {
            let t = MemberEndpoint::parse(text, secure).unwrap();
            let ListenAddress::Tcp(host, port) = t.place else { panic!("{text}") };
            (t.secure, host, port, t.text)
        };
        let expect =
            |secure, host: &str, port, text: &str| (secure, host.to_owned(), port, text.to_owned());
        assert_eq!(tcp("a:1", false), expect(false, "a", 1, "http://a:1"));
        assert_eq!(tcp("a:1", true), expect(true, "a", 1, "https://a:1"));
        assert_eq!(tcp("http://a:1", true), expect(false, "a", 1, "http://a:1"));
        assert_eq!(tcp("https://a:1/", false), expect(true, "a", 1, "https://a:1"));
        assert_eq!(tcp("[::1]:7", false), expect(false, "::1", 7, "http://[::1]:7"));
        assert_eq!(tcp("::1", false), expect(false, "::1", 2379, "http://[::1]:2379"));
        assert_eq!(tcp("host", false), expect(false, "host", 2379, "http://host:2379"));
        let unix = MemberEndpoint::parse("unix:///run/etcd.sock", true).unwrap();
        assert_eq!(
            (unix.secure, unix.place),
            (false, ListenAddress::Unix("/run/etcd.sock".into()))
        );
        for bad in ["", "ftp://a:1", "a:x", ":1", "[::1", "https://", "unix://", "a:99999", "u@h:1"]
        {
            assert!(MemberEndpoint::parse(bad, false).is_err(), "{bad}");
        }
    }
}
