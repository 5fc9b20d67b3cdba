//! A server that speaks enough of the protocols of object stores: objects in memory, listed two a
//! page, read whole or in part, and written. The first part of a path is the bucket.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

/// Objects of one listed page.
const PAGE: usize = 2;
const WRITTEN: &str = "2026-01-02T03:04:05.000Z";
const WRITTEN_HTTP: &str = "Fri, 02 Jan 2026 03:04:05 GMT";

/// What the server has and asks for.
#[derive(Default)]
pub struct Shelf {
    /// By bucket and key, `bucket/a/b`.
    pub objects: BTreeMap<String, Vec<u8>>,
    /// What a request's `Authorization` must contain; empty for nothing.
    pub authorization: String,
    /// What a refusal says besides.
    pub refusal: String,
    /// Keys of which an answer breaks off half way, every time.
    pub broken: Vec<String>,
}

/// A running server. It ends with the test.
pub struct Bucket {
    pub url: String,
    /// Bytes of objects that were sent.
    pub sent: Arc<AtomicUsize>,
    /// Whatever was asked for: method, path and query.
    pub asked: Arc<Mutex<Vec<String>>>,
    end: Arc<AtomicBool>,
    address: SocketAddr,
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
}

impl Bucket {
    pub fn start(shelf: Shelf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sent, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let shelf = Arc::new(RwLock::new(shelf));
        let (count, over, all) = (Arc::clone(&sent), Arc::clone(&end), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (shelf, count, all) =
                    (Arc::clone(&shelf), Arc::clone(&count), Arc::clone(&all));
                // A connection that breaks is the client's trouble.
                std::thread::spawn(move || serve(stream, &shelf, &count, &all));
            }
        });
        Self { url: format!("http://{address}"), sent, asked, end, address }
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    stream: TcpStream,
    shelf: &RwLock<Shelf>,
    sent: &AtomicUsize,
    asked: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    asked.lock().unwrap().push(format!("{method} {target}"));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut request = Request {
        method: method.to_owned(),
        path: decoded(path).trim_start_matches('/').to_owned(),
        query: pairs.map(|(name, value)| (decoded(name), decoded(value))).collect(),
        headers: BTreeMap::new(),
    };
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':') {
            request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    if request.method == "PUT" {
        let len = request.headers["content-length"].parse().unwrap();
        let mut body = vec![0; len];
        reader.read_exact(&mut body)?;
        shelf.write().unwrap().objects.insert(request.path, body);
        let mut stream = stream;
        return plain(&mut stream, "201 Created", &[("ETag", "\"written\"".to_owned())], b"");
    }
    answer(stream, &request, &shelf.read().unwrap(), sent)
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
            out.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).unwrap()
}

fn answer(
    mut stream: TcpStream,
    request: &Request,
    shelf: &Shelf,
    sent: &AtomicUsize,
) -> io::Result<()> {
    let given = request.headers.get("authorization").map_or("", String::as_str);
    if !given.contains(&shelf.authorization) {
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message>\
             <Detail>{}</Detail></Error>",
            shelf.refusal
        );
        return plain(&mut stream, "403 Forbidden", &[], body.as_bytes());
    }
    if request.query.get("comp").is_some_and(|c| c == "list") {
        return plain(&mut stream, "200 OK", &[], azure_list(request, shelf).as_bytes());
    }
    if request.query.contains_key("list-type") {
        return plain(&mut stream, "200 OK", &[], list(request, shelf).as_bytes());
    }
    let Some(object) = shelf.objects.get(&request.path) else {
        let body = "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code></Error>";
        return plain(&mut stream, "404 Not Found", &[], body.as_bytes());
    };
    let headers = [
        ("ETag", "\"made-up\"".to_owned()),
        ("Last-Modified", WRITTEN_HTTP.to_owned()),
        ("x-ms-blob-type", "BlockBlob".to_owned()),
    ];
    if request.method == "HEAD" {
        return head(&mut stream, "200 OK", &headers, object.len());
    }
    let range = request.headers.get("range").or_else(|| request.headers.get("x-ms-range"));
    let (status, part, whole) = match range.and_then(|r| span(r, object.len())) {
        Some((from, to)) => {
            let range = format!("bytes {from}-{}/{}", to - 1, object.len());
            ("206 Partial Content", &object[from..to], Some(("Content-Range", range)))
        }
        None => ("200 OK", &object[..], None),
    };
    let all: Vec<_> = headers.into_iter().chain(whole).collect();
    let broken = shelf.broken.contains(&request.path);
    head(&mut stream, status, &all, part.len())?;
    let end = if broken { part.len() / 2 } else { part.len() };
    for chunk in part[..end].chunks(16 << 10) {
        stream.write_all(chunk)?;
        sent.fetch_add(chunk.len(), Ordering::SeqCst);
    }
    Ok(())
}

fn span(range: &str, len: usize) -> Option<(usize, usize)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let from = from.parse().ok()?;
    let to = to.parse::<usize>().map_or(len, |last| (last + 1).min(len));
    (from < to).then_some((from, to))
}

fn head(
    stream: &mut TcpStream,
    status: &str,
    headers: &[(&str, String)],
    len: usize,
) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    stream.write_all(format!("{text}\r\n").as_bytes())
}

fn plain(
    stream: &mut TcpStream,
    status: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> io::Result<()> {
    head(stream, status, headers, body.len())?;
    stream.write_all(body)
}

/// The objects of a page, and where the next one begins.
fn page<'s>(
    request: &Request,
    shelf: &'s Shelf,
    token: &str,
) -> (Vec<(&'s str, usize)>, Option<String>) {
    let bucket = format!("{}/", request.path.trim_end_matches('/'));
    let prefix = request.query.get("prefix").map_or("", String::as_str);
    let after = request.query.get(token).map_or("", String::as_str);
    let mut all = shelf
        .objects
        .iter()
        .filter_map(|(path, object)| Some((path.strip_prefix(&bucket)?, object.len())))
        .filter(|(key, _)| key.starts_with(prefix) && *key > after);
    let page: Vec<_> = all.by_ref().take(PAGE).collect();
    let next = all.next().and(page.last()).map(|(key, _)| (*key).to_owned());
    (page, next)
}

/// `docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html`; Google's XML API is alike.
fn list(request: &Request, shelf: &Shelf) -> String {
    let (page, next) = page(request, shelf, "continuation-token");
    let mut body = "<?xml version=\"1.0\"?><ListBucketResult>".to_owned();
    for (key, size) in page {
        let _ = write!(
            body,
            "<Contents><Key>{key}</Key><LastModified>{WRITTEN}</LastModified>\
             <ETag>\"made-up\"</ETag><Size>{size}</Size></Contents>"
        );
    }
    if let Some(next) = next {
        let _ = write!(body, "<NextContinuationToken>{next}</NextContinuationToken>");
    }
    body + "</ListBucketResult>"
}

/// `learn.microsoft.com/rest/api/storageservices/list-blobs`.
fn azure_list(request: &Request, shelf: &Shelf) -> String {
    let (page, next) = page(request, shelf, "marker");
    let mut body = "<?xml version=\"1.0\"?><EnumerationResults><Blobs>".to_owned();
    for (key, size) in page {
        let _ = write!(
            body,
            "<Blob><Name>{key}</Name><Properties><Last-Modified>{WRITTEN_HTTP}</Last-Modified>\
             <Etag>made-up</Etag><Content-Length>{size}</Content-Length>\
             <Content-Type>application/octet-stream</Content-Type></Properties></Blob>"
        );
    }
    let _ = write!(body, "</Blobs><NextMarker>{}</NextMarker>", next.unwrap_or_default());
    body + "</EnumerationResults>"
}
