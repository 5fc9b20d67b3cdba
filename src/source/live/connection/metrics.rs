//! What a member tells of itself over HTTP, beside gRPC, on the same port.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::dial::{Speaks, dial};
use super::facts::Facts;
use super::session::Session;

/// Most bytes of an answer: etcd's metrics are some hundred KB.
const LIMIT: u64 = 8 << 20;

impl Session {
    /// The current value of one of a member's metrics; `None` where it does not tell, for whatever
    /// reason. No password or token is sent.
    pub async fn metric(&self, index: usize, name: &str) -> Option<f64> {
        let text = tokio::time::timeout(self.command_timeout, self.metrics(index)).await;
        value(&text.ok()??, name)
    }

    async fn metrics(&self, index: usize) -> Option<String> {
        let target = &self.members[index].target;
        let facts = Arc::new(Facts::default());
        let (tls, wait) = (self.tls.as_ref(), self.dial_timeout);
        let mut stream = dial(target, tls, wait, facts, Speaks::Http1).await.ok()?;
        let host = target.authority();
        // Of version 1.0, so that the answer ends with the connection.
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        let mut answer = Vec::new();
        // Some servers end TLS without saying so: what came is looked at all the same.
        let _ = stream.take(LIMIT).read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let ok = head.split(' ').nth(1) == Some("200");
        ok.then(|| body.to_owned())
    }
}

/// The value of a metric without labels, in Prometheus's text format.
fn value(text: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    lines.next()?.split(' ').next()?.parse().ok().filter(|v: &f64| v.is_finite())
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn a_value_is_found_by_its_whole_name() {
        let text = "# HELP a_b Something.\n# TYPE a_b gauge\na_b_c 1\na_b 2.147483648e+09\n";
        assert_eq!(value(text, "a_b"), Some(2_147_483_648.0));
        assert_eq!(value(text, "a_b_c"), Some(1.0));
        assert_eq!(value(text, "a"), None);
        assert_eq!(value("a_b NaN\n", "a_b"), None);
    }
}
