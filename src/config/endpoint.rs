//! The endpoint of a KMS plugin, read as Go's `url.Parse` reads it.
//!
//! Source: kubernetes/kms `pkg/util/util.go` (`ParseEndpoint`), Go `net/url`.

use std::path::PathBuf;

use crate::hex::from_percent;

/// A validated KMS endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As the configuration spells it.
    pub url: String,
    /// Where the plugin listens.
    pub socket: Socket,
}

/// Where a plugin listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// A unix socket in the file system.
    Path(PathBuf),
    /// A Linux abstract socket, without its leading NUL.
    Abstract(String),
    /// The URL passes the API server's validation and yet names no socket (`unix://@kms`,
    /// `unix:relative`): it never connects.
    Nowhere,
}

/// Why an endpoint is refused, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// There is none.
    #[error("is required")]
    Empty,
    /// Not a URL.
    #[error("is not a valid URL: {0}")]
    NotAUrl(&'static str),
    /// Another scheme than `unix`.
    #[error("must have the scheme `unix`, as in `unix:///run/kms.sock`")]
    Scheme,
}

impl Endpoint {
    /// Reads an endpoint.
    ///
    /// # Errors
    /// Where the API server would refuse it.
    pub fn parse(url: &str) -> Result<Self, EndpointError> {
        if url.is_empty() {
            return Err(EndpointError::Empty);
        }
        if url.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err(EndpointError::NotAUrl("it has a control character"));
        }
        let (before_fragment, fragment) = url.split_once('#').unwrap_or((url, ""));
        unescape(fragment)?;
        let (scheme, rest) = split_scheme(before_fragment)?;
        if scheme.is_empty() {
            let (path, _) = rest.split_once('?').unwrap_or((rest, ""));
            let first = path.split('/').next().unwrap_or("");
            if first.contains(':') {
                return Err(EndpointError::NotAUrl("its first path segment has a colon"));
            }
            unescape(path)?;
            return Err(EndpointError::Scheme);
        }
        let (rest, _) = rest.split_once('?').unwrap_or((rest, ""));
        let path = if rest.starts_with('/') {
            match rest.strip_prefix("//").filter(|r| !r.starts_with("//")) {
                Some(with_host) => {
                    let (host, path) =
                        with_host.find('/').map_or((with_host, ""), |i| with_host.split_at(i));
                    check_host(host)?;
                    path
                }
                None => rest,
            }
        } else {
            // An opaque URL (`unix:relative`): Go leaves the path empty.
            ""
        };
        let path = unescape(path)?;
        if !scheme.eq_ignore_ascii_case("unix") {
            return Err(EndpointError::Scheme);
        }
        let socket = match path.strip_prefix("/@") {
            Some(name) => Socket::Abstract(name.to_owned()),
            None if path.is_empty() => Socket::Nowhere,
            None => Socket::Path(PathBuf::from(path)),
        };
        Ok(Self { url: url.to_owned(), socket })
    }
}

fn split_scheme(url: &str) -> Result<(&str, &str), EndpointError> {
    for (i, c) in url.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if i > 0 => {}
            ':' if i > 0 => return Ok((&url[..i], &url[i + 1..])),
            ':' => return Err(EndpointError::NotAUrl("the scheme is missing")),
            _ => break,
        }
    }
    Ok(("", url))
}

fn check_host(authority: &str) -> Result<(), EndpointError> {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = if let Some(inner) = host.strip_prefix('[') {
        let Some((_, after)) = inner.rsplit_once(']') else {
            return Err(EndpointError::NotAUrl("a `[` in the host is not closed"));
        };
        Some(after)
    } else {
        host.find(':').map(|i| &host[i..])
    };
    let port_ok = port.is_none_or(|p| {
        p.is_empty() || p.strip_prefix(':').is_some_and(|d| d.bytes().all(|b| b.is_ascii_digit()))
    });
    if !port_ok {
        return Err(EndpointError::NotAUrl("the port is no number"));
    }
    if authority.contains([' ', '"', '<', '>', '\\', '^', '`', '{', '|', '}']) {
        return Err(EndpointError::NotAUrl("the host has a character that no host can have"));
    }
    unescape(authority).map(drop)
}

/// Percent-decoding.
fn unescape(text: &str) -> Result<String, EndpointError> {
    let out = from_percent(text);
    let out = out.ok_or(EndpointError::NotAUrl("it has an invalid percent escape"))?;
    String::from_utf8(out).map_err(|_| EndpointError::NotAUrl("its path is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_name_sockets_as_in_go() {
        let path = |p: &str| Socket::Path(PathBuf::from(p));
        for (url, socket) in [
            ("unix:///run/kms/a.sock", path("/run/kms/a.sock")),
            ("unix:/run/kms/a.sock", path("/run/kms/a.sock")),
            ("UNIX:///run/a.sock", path("/run/a.sock")),
            ("unix://host/run/a.sock", path("/run/a.sock")),
            ("unix:///run/a%20b.sock?x=%zz", path("/run/a b.sock")),
            ("unix:///run/a.sock#frag", path("/run/a.sock")),
            ("unix:////run/a.sock", path("//run/a.sock")),
            ("unix:///@kms", Socket::Abstract("kms".to_owned())),
            ("unix://@kms", Socket::Nowhere),
            ("unix:rel.sock", Socket::Nowhere),
        ] {
            assert_eq!(Endpoint::parse(url).map(|e| e.socket), Ok(socket), "{url}");
        }
    }

    #[test]
    fn other_endpoints_are_refused() {
        use EndpointError::{Empty, NotAUrl, Scheme};
        for (url, is) in [
            ("", "empty"),
            ("tcp://localhost:1", "scheme"),
            ("/run/kms.sock", "scheme"),
            ("kms.sock", "scheme"),
            (":///x", "url"),
            ("1unix:///x", "url"),
            ("unix:///a%zz", "url"),
            ("unix:///a\nb", "url"),
            ("unix://host:port/x", "url"),
            ("unix://[::1/x", "url"),
            ("unix://a b/x", "url"),
        ] {
            let got = match Endpoint::parse(url) {
                Err(Empty) => "empty",
                Err(Scheme) => "scheme",
                Err(NotAUrl(_)) => "url",
                Ok(_) => "ok",
            };
            assert_eq!(got, is, "{url}");
        }
    }
}
