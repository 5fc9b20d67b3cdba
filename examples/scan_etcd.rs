//! How many Secrets of a live etcd are stored unencrypted, over mutual TLS:
//! `cargo run --no-default-features --features live --example scan_etcd -- ENDPOINT CA CERT KEY`.

use std::error::Error;
use std::ops::ControlFlow;
use std::time::Duration;

use atrest::envelope::Envelope;
use atrest::resource::{Scope, Selector};
use atrest::source::live::{Live, LiveOptions, Tempo};
use atrest::source::{Query, Source as _};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, ca, cert, key] = args.as_slice() else {
        return Err("give an endpoint, a CA, a client certificate and its key".into());
    };
    let mut etcd = Live::connect(&LiveOptions {
        endpoints: vec![endpoint.clone()],
        cacert: Some(ca.into()),
        cert: Some(cert.into()),
        key: Some(key.into()),
        credentials: None,
        insecure_skip_tls_verify: false,
        insecure_transport: false,
        dial_timeout: Duration::from_secs(2),
        command_timeout: Duration::from_secs(5),
        keepalive_time: Duration::from_secs(10),
        keepalive_timeout: Duration::from_secs(6),
        tempo: Tempo::default(),
    })?;
    let ranges = Scope::new("/registry").ranges(&[Selector::parse("secrets")?]);
    let query = Query { ranges, revision: None, ordered: false };
    let (mut all, mut plaintext) = (0u64, 0u64);
    let visit = etcd.visit(&query, &mut |entry| {
        all += 1;
        plaintext += u64::from(Envelope::of(entry.stored()).is_plaintext());
        ControlFlow::Continue(())
    })?;
    println!("{plaintext} of {all} are unencrypted, at revision {}", visit.revision);
    Ok(())
}
