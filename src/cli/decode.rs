//! `atrest decode`: the same as `get`, for bytes on stdin.

use std::io::{IsTerminal as _, Read as _};

use base64::Engine as _;
use zeroize::Zeroizing;

use super::failure::{Exit, Failure};
use super::object::Reader;
use super::{Ctx, get};
use crate::entry::Entry;
use crate::envelope::{Envelope, Provider};
use crate::report::Format;

/// Options of `decode`. The etcd key comes as `--key`, which the connection options hold.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Reads a stored value, or what `etcdctl get KEY` prints (simple, -w json or --print-value-only).
--key gives the etcd key of a value that comes without one; AES-GCM and KMS need it, because the
API server authenticates it with the value.")]
pub struct Args {
    /// Show secret data instead of their lengths
    #[arg(long)]
    pub reveal: bool,

    /// Keep metadata.managedFields, which kubectl hides as well
    #[arg(long)]
    pub show_managed_fields: bool,
}

/// Refuses more than this: etcd itself stops far below.
const LARGEST: u64 = 64 << 20;

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let format = Format::choose(
        ctx.global.write_out.as_deref(),
        &[Format::Yaml, Format::Json, Format::Fields],
    )
    .map_err(Failure::usage)?;
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::usage("nothing on stdin")
            .hint("pipe a value in: etcdctl get /registry/secrets/NS/NAME | atrest decode"));
    }
    let mut input = Zeroizing::new(Vec::new());
    stdin
        .lock()
        .take(LARGEST + 1)
        .read_to_end(&mut input)
        .map_err(|e| Failure::new("cannot read stdin").because(&e))?;
    if input.len() as u64 > LARGEST {
        return Err(Failure::new("more than 64 MiB on stdin: give fewer entries"));
    }
    if input.is_empty() {
        return Err(Failure::new("nothing on stdin")
            .hint("etcdctl prints nothing for a key that does not exist"));
    }
    let given = ctx.given.key.then(|| ctx.global.key.clone()).flatten().map(|path| {
        use std::os::unix::ffi::OsStringExt as _;
        path.into_os_string().into_vec()
    });
    let candidates = read_input(&input, given.as_deref())?;
    if input.windows(3).any(|w| w == "\u{FFFD}".as_bytes())
        && candidates.iter().any(|e| e.value.starts_with(crate::envelope::ENCRYPTED_PREFIX))
    {
        ctx.ui.warn(
            "the value contains replacement characters, as a terminal leaves them: bytes were lost; pipe it instead of copying it, or use `etcdctl get -w json`",
        );
    }
    let reader = Reader::new(ctx, args.show_managed_fields)?;
    let mut items = Vec::new();
    let mut exit = Exit::Ok;
    for entry in &candidates {
        let shown = get::show(ctx, &reader, entry, args.reveal).or_else(|first| {
            // `--print-value-only` and the simple form add a line feed. It is taken off only
            // when the exact bytes are no value, because ciphertext may end in one itself.
            let Some(shorter) = entry.value.strip_suffix(b"\n") else { return Err(first) };
            let mut trimmed = entry.clone();
            trimmed.value = shorter.to_vec();
            get::show(ctx, &reader, &trimmed, args.reveal).map_err(|_| first)
        });
        match shown {
            Ok((json, header, whole)) => {
                if !whole {
                    exit = Exit::Partial;
                }
                items.push((json, header));
            }
            Err(reason) => {
                let mut failure = Failure::new(format!("cannot decode the value: {reason}"));
                failure.exit = Exit::Partial;
                if let Some(hint) = hint(ctx, &input, entry) {
                    failure = failure.hint(hint);
                }
                ctx.ui.failure(&failure);
                exit = Exit::Partial;
            }
        }
    }
    get::print(format, items)?;
    Ok(exit)
}

/// What may be wrong with input that could not be decoded.
fn hint(ctx: &Ctx, input: &[u8], entry: &Entry) -> Option<&'static str> {
    let envelope = Envelope::of(&entry.value);
    // The first words of `etcdctl get -w fields`, and of its keys with --hex.
    let other_form = input.starts_with(b"\"ClusterID\"") || input.starts_with(br"\x");
    if other_form {
        Some("of etcdctl's forms, give `-w json`, the simple one or --print-value-only")
    } else if !envelope.is_plaintext() && ctx.global.encryption_config.is_empty() {
        Some("give the API server's file with --encryption-config")
    } else if entry.key.is_empty() && matches!(envelope.provider, Provider::AesGcm | Provider::Kms)
    {
        Some("give the etcd key with --key; AES-GCM and KMS values cannot be decrypted without it")
    } else if entry.mod_revision == 0 && entry.value.len() < input.len() {
        Some("if the input holds several entries, give them as `etcdctl get -w json` prints them")
    } else {
        None
    }
}

/// Recognises the form of the input, always at offset 0.
fn read_input(input: &[u8], key: Option<&[u8]>) -> Result<Vec<Entry>, Failure> {
    if let Some(entries) = etcdctl_json(input)? {
        return Ok(entries);
    }
    let is_value = input.starts_with(crate::envelope::ENCRYPTED_PREFIX)
        || crate::transform::is_kubernetes_value(input);
    if !is_value
        && let Some(end) = memchr::memchr(b'\n', input)
        && end > 0
        && std::str::from_utf8(&input[..end]).is_ok()
        && (input[0] == b'/' || key == Some(&input[..end]))
    {
        return Ok(vec![entry(&input[..end], &input[end + 1..])]);
    }
    Ok(vec![entry(key.unwrap_or_default(), input)])
}

fn entry(key: &[u8], value: &[u8]) -> Entry {
    Entry {
        key: key.to_vec(),
        value: value.to_vec(),
        create_revision: 0,
        mod_revision: 0,
        version: 0,
        lease: 0,
    }
}

#[derive(serde::Deserialize)]
struct RangeResponse {
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(serde::Deserialize)]
struct KeyValue {
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    create_revision: i64,
    #[serde(default)]
    mod_revision: i64,
    #[serde(default)]
    version: i64,
}

/// `etcdctl get -w json`: a document with `header` and base64 keys and values.
fn etcdctl_json(input: &[u8]) -> Result<Option<Vec<Entry>>, Failure> {
    if input.first() != Some(&b'{') {
        return Ok(None);
    }
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(input) else { return Ok(None) };
    if document.get("header").is_none_or(|h| h.get("cluster_id").is_none())
        || document.get("kind").is_some()
    {
        return Ok(None);
    }
    let bad = || {
        Failure::new("the input looks like `etcdctl get -w json`, but its entries are not base64")
    };
    let response: RangeResponse = serde_json::from_value(document).map_err(|_| bad())?;
    if response.kvs.is_empty() {
        return Err(Failure::new("etcdctl found no entry")
            .hint("the key may be misspelt or in another --prefix"));
    }
    let decode =
        |text: &str| base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| bad());
    response
        .kvs
        .iter()
        .map(|kv| {
            Ok(Entry {
                key: decode(&kv.key)?,
                value: decode(&kv.value)?,
                create_revision: kv.create_revision,
                mod_revision: kv.mod_revision,
                version: kv.version,
                lease: 0,
            })
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(input: &[u8], key: Option<&[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
        read_input(input, key)
            .unwrap()
            .into_iter()
            .map(|e| (e.key.clone(), e.value.clone()))
            .collect()
    }

    #[test]
    fn forms_are_recognised_and_nothing_is_trimmed() {
        let v = b"k8s:enc:aescbc:v1:k:\n\n".as_slice();
        assert_eq!(parts(v, None), [(vec![], v.to_vec())]);
        assert_eq!(parts(v, Some(b"/a")), [(b"/a".to_vec(), v.to_vec())]);
        assert_eq!(parts(b"/a\nk8s\0x\n", None), [(b"/a".to_vec(), b"k8s\0x\n".to_vec())]);
        let json = br#"{"header":{"cluster_id":1},"kvs":[{"key":"L2E=","value":"eHkK","mod_revision":7}],"count":1}"#;
        assert_eq!(parts(json, None), [(b"/a".to_vec(), b"xy\n".to_vec())]);
        let object = br#"{"kind":"Widget","header":{"cluster_id":1}}"#;
        assert_eq!(parts(object, None), [(vec![], object.to_vec())]);
    }

    #[test]
    fn an_empty_etcdctl_answer_is_an_error() {
        assert!(read_input(br#"{"header":{"cluster_id":1}}"#, None).is_err());
    }
}
