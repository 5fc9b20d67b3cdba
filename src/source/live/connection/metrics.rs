//! What a member tells of itself over HTTP, beside gRPC, on the same port.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::dial::{Speaks, dial};
use super::facts::Facts;
use super::session::Session;

/// Most bytes of an answer: etcd's metrics are some hundred KB.
const LIMIT: usize = 8 << 20;

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
        let stream = dial(target, tls, wait, facts, Speaks::Http1).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        // What it ends with, the request is told.
        tokio::spawn(async move { drop(connection.await) });
        let request = Request::get("/metrics").header(HOST, target.authority());
        let request = request.body(Empty::<Bytes>::new()).ok()?;
        let response = sender.send_request(request).await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        let body = Limited::new(response.into_body(), LIMIT).collect().await.ok()?;
        String::from_utf8(body.to_bytes().into()).ok()
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
