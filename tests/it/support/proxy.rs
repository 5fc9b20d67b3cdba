//! A wire between client and server that tests can hold, cut, and lead elsewhere.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_mins(1);

/// Passes bytes to and from a server.
pub struct Proxy {
    /// Where clients connect: `127.0.0.1:PORT`, `[::1]:PORT` or a path.
    pub endpoint: String,
    state: Arc<State>,
}

struct State {
    server: String,
    flow: Mutex<Flow>,
    changed: Condvar,
    closed: AtomicBool,
    hangs_up: AtomicBool,
}

#[derive(Default)]
struct Flow {
    /// Bytes from the server to clients so far.
    passed: usize,
    /// No more than these are passed until somebody releases.
    hold_at: Option<usize>,
    /// A thread is waiting.
    held: bool,
    /// Bytes a second to all clients together.
    rate: Option<u32>,
    /// When the next bytes may pass at that rate.
    due: Option<Instant>,
    /// Both ends of every connection.
    open: Vec<Box<dyn Fn() + Send>>,
}

impl Flow {
    /// How long `bytes` have to wait for the others before them.
    fn turn(&mut self, bytes: usize) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let now = Instant::now();
        let due = self.due.map_or(now, |due| due.max(now));
        let takes = Duration::from_secs(1) * u32::try_from(bytes).unwrap() / rate;
        self.due = Some(due + takes);
        due - now + takes
    }
}

trait Wire: Read + Write + Send + Sized + 'static {
    fn twin(&self) -> Self;
    fn end(&self);
}

impl Wire for TcpStream {
    fn twin(&self) -> Self {
        self.try_clone().unwrap()
    }
    fn end(&self) {
        // The other side may have ended it already.
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Wire for UnixStream {
    fn twin(&self) -> Self {
        self.try_clone().unwrap()
    }
    fn end(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Proxy {
    /// Listens on 127.0.0.1.
    pub fn new(server: &str) -> Self {
        Self::tcp(server, TcpListener::bind(("127.0.0.1", 0)).unwrap())
    }

    /// Listens on `[::1]`.
    pub fn v6(server: &str) -> Self {
        Self::tcp(server, TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap())
    }

    fn tcp(server: &str, listener: TcpListener) -> Self {
        let endpoint = listener.local_addr().unwrap().to_string();
        listener.set_nonblocking(true).unwrap();
        let accept = move || {
            let stream = listener.accept()?.0;
            stream.set_nonblocking(false)?;
            Ok(stream)
        };
        Self::start(server, endpoint, accept)
    }

    /// Listens on a socket file.
    pub fn unix(server: &str, path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let accept = move || {
            let stream = listener.accept()?.0;
            stream.set_nonblocking(false)?;
            Ok(stream)
        };
        Self::start(server, path.to_str().unwrap().to_owned(), accept)
    }

    fn start<W: Wire>(
        server: &str,
        endpoint: String,
        accept: impl Fn() -> io::Result<W> + Send + 'static,
    ) -> Self {
        let state = Arc::new(State {
            server: server.to_owned(),
            flow: Mutex::default(),
            changed: Condvar::new(),
            closed: AtomicBool::new(false),
            hangs_up: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            while !shared.closed.load(Ordering::SeqCst) {
                match accept() {
                    Ok(client) => shared.connect(client),
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self { endpoint, state }
    }

    /// From now on no more than so many bytes a second pass to clients, over all connections.
    pub fn slow(&self, rate: u32) {
        self.state.flow.lock().unwrap().rate = Some(rate);
    }

    /// Once the server has sent `bytes` more, nothing passes to clients until [`Proxy::release`].
    pub fn hold_after(&self, bytes: usize) {
        let mut flow = self.state.flow.lock().unwrap();
        flow.hold_at = Some(flow.passed + bytes);
        flow.held = false;
    }

    /// Waits until that point is reached.
    #[track_caller]
    pub fn wait_until_held(&self) {
        let flow = self.state.flow.lock().unwrap();
        let (flow, _) = self.state.changed.wait_timeout_while(flow, PATIENCE, |f| !f.held).unwrap();
        assert!(flow.held, "the server sent {} bytes only", flow.passed);
    }

    /// Lets everything pass again.
    pub fn release(&self) {
        self.state.flow.lock().unwrap().hold_at = None;
        self.state.changed.notify_all();
    }

    /// Ends every connection; new ones are still accepted.
    pub fn drop_connections(&self) {
        // Also when a test that failed holds it.
        let mut flow = self.state.flow.lock().unwrap_or_else(PoisonError::into_inner);
        flow.open.drain(..).for_each(|end| end());
        flow.hold_at = None;
        drop(flow);
        self.state.changed.notify_all();
    }

    /// Ends every connection, and new ones as soon as they are there.
    pub fn hang_up(&self) {
        self.state.hangs_up.store(true, Ordering::SeqCst);
        self.drop_connections();
    }

    /// Ends every connection and refuses new ones.
    pub fn cut(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
        // The listener goes with the accepting thread.
        thread::sleep(Duration::from_millis(50));
        self.drop_connections();
    }

    /// Bytes that the server has sent to clients.
    pub fn passed(&self) -> usize {
        self.state.flow.lock().unwrap().passed
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.drop_connections();
    }
}

impl State {
    fn connect<W: Wire>(self: &Arc<Self>, client: W) {
        if self.hangs_up.load(Ordering::SeqCst) {
            return client.end();
        }
        let Ok(server) = TcpStream::connect(&self.server) else { return client.end() };
        let (c, s) = (client.twin(), server.twin());
        self.flow.lock().unwrap().open.push(Box::new(move || {
            c.end();
            s.end();
        }));
        let (mut from, mut to) = (client.twin(), server.twin());
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            from.end();
            to.end();
        });
        let state = Arc::clone(self);
        thread::spawn(move || {
            let _ = state.answers(server.twin(), client.twin());
            client.end();
            server.end();
        });
    }

    fn answers(&self, mut server: TcpStream, mut client: impl Wire) -> io::Result<()> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let n = server.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            let mut flow = self.flow.lock().unwrap();
            flow.passed += n;
            let deadline = Instant::now() + PATIENCE;
            while flow.hold_at.is_some_and(|at| flow.passed > at) && Instant::now() < deadline {
                flow.held = true;
                self.changed.notify_all();
                flow = self.changed.wait_timeout(flow, Duration::from_millis(100)).unwrap().0;
            }
            let slice = flow.rate.map_or(n, |rate| (rate as usize / 20).max(1));
            drop(flow);
            for piece in buffer[..n].chunks(slice) {
                let wait = self.flow.lock().unwrap().turn(piece.len());
                thread::sleep(wait);
                client.write_all(piece)?;
            }
        }
    }
}
