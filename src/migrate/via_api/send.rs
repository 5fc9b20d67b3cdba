//! Requests to an API server that is left alone for as long as it wants.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use tokio::runtime::Runtime;

use super::super::apply::Stop;
use super::super::throttle::Throttle;
use super::{AGAIN, MAX_ERRORS, PATIENCE, Pace};
use crate::apiserver::{Answer, ApiError, Client, Link, Request};

/// The longest that a server may ask to be left alone.
const LONGEST: Duration = Duration::from_mins(1);

/// What came of a request.
pub enum Reply {
    /// An answer that is neither a plea for rest nor an error of the server's own.
    Answer(Answer),
    /// The server has an error each time.
    Refused(String),
    /// Nobody knows whether it happened.
    Lost(ApiError),
}

/// Shares a server's patience among threads.
pub struct Sender<'a> {
    client: &'a Client,
    throttle: Throttle,
    /// The server wants to be left alone until then.
    quiet: Mutex<Instant>,
    interrupted: &'a AtomicBool,
    halted: AtomicBool,
    busy: AtomicU64,
}

impl<'a> Sender<'a> {
    /// To `client`'s server, until `interrupted`.
    pub fn new(client: &'a Client, pace: Pace, interrupted: &'a AtomicBool) -> Self {
        Self {
            client,
            throttle: Throttle::new(pace.concurrency, pace.qps),
            quiet: Mutex::new(Instant::now()),
            interrupted,
            halted: AtomicBool::new(false),
            busy: AtomicU64::new(0),
        }
    }

    /// Whether it is over.
    pub fn stopped(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) || self.halted.load(Ordering::Relaxed)
    }

    /// Ends it for all; whether this was the first to do so.
    pub fn halt(&self) -> bool {
        !self.halted.swap(true, Ordering::Relaxed)
    }

    /// How often the server said that it is busy.
    pub fn times_busy(&self) -> u64 {
        self.busy.load(Ordering::Relaxed)
    }

    /// A connection, for one thread.
    pub fn line(&self) -> Result<Line<'_>, Stop> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Stop::Api(e.to_string()))?;
        Ok(Line { sender: self, runtime, link: None })
    }

    /// Waits as long as the server wants.
    fn wait(&self) -> Result<(), Stop> {
        loop {
            let until = *self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
            let left = until.saturating_duration_since(Instant::now());
            if self.stopped() {
                return Err(Stop::Interrupted);
            }
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    fn leave_alone(&self, time: Duration) {
        let until = Instant::now() + time.min(LONGEST);
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        *quiet = until.max(*quiet);
    }
}

/// One thread's connection, made anew when it breaks.
pub struct Line<'s> {
    sender: &'s Sender<'s>,
    runtime: Runtime,
    link: Option<Link>,
}

impl Line<'_> {
    /// Sends a request until there is an answer.
    pub fn ask(&mut self, request: &Request<'_>) -> Result<Reply, Stop> {
        let sender = self.sender;
        let start = Instant::now();
        let mut errors = 0;
        loop {
            sender.wait()?;
            if !sender.throttle.begin(1, &|| sender.stopped()) {
                return Err(Stop::Interrupted);
            }
            let sent = Instant::now();
            let answer = match self.send(request) {
                Ok(answer) => answer,
                Err(e) => {
                    sender.throttle.failed();
                    self.link = None;
                    if start.elapsed() > PATIENCE || matches!(e, ApiError::Setup(_)) {
                        return Err(Stop::NoAnswer(e));
                    }
                    // A lost answer may be that of a write that happened.
                    if matches!(e, ApiError::Connect { .. }) {
                        std::thread::sleep(AGAIN);
                        continue;
                    }
                    return Ok(Reply::Lost(e));
                }
            };
            if answer.status == StatusCode::TOO_MANY_REQUESTS {
                sender.throttle.busy();
                sender.busy.fetch_add(1, Ordering::Relaxed);
                sender.leave_alone(answer.retry_after.unwrap_or(Duration::from_secs(1)));
                continue;
            }
            sender.throttle.answered(sent.elapsed());
            if answer.status.is_server_error() {
                errors += 1;
                let message = message(&answer);
                let webhook = message.contains("webhook");
                if errors <= MAX_ERRORS || !webhook && start.elapsed() < PATIENCE {
                    sender.leave_alone(answer.retry_after.unwrap_or(AGAIN));
                    continue;
                }
                return Ok(Reply::Refused(message));
            }
            if answer.status == StatusCode::UNAUTHORIZED {
                return Err(Stop::Api("the API server does not know this user (401)".to_owned()));
            }
            return Ok(Reply::Answer(answer));
        }
    }

    /// Asks for something, again where the answer was lost: asking changes nothing.
    pub fn get(&mut self, path: &str, accept: &str) -> Result<Reply, Stop> {
        let start = Instant::now();
        loop {
            match self.ask(&Request { method: Method::GET, path, accept, body: None })? {
                Reply::Lost(e) if start.elapsed() > PATIENCE => return Err(Stop::NoAnswer(e)),
                Reply::Lost(_) => std::thread::sleep(AGAIN),
                reply => return Ok(reply),
            }
        }
    }

    fn send(&mut self, request: &Request<'_>) -> Result<Answer, ApiError> {
        let Self { sender, runtime, link } = self;
        runtime.block_on(async {
            let link = match link {
                Some(link) => link,
                None => link.insert(sender.client.connect().await?),
            };
            link.send(request).await
        })
    }
}

/// What a server said of a refusal, made safe to show.
pub fn message(answer: &Answer) -> String {
    let message = answer.said().1.unwrap_or_else(|| answer.status.to_string());
    let short: String = message.chars().take(300).collect();
    crate::visible::visible(&short)
}
