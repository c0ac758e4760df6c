//! A server on a free port, and a client that writes exactly the bytes it is told to.

use std::net::SocketAddr;
use std::time::Duration;

use runtime_http::{DrainReport, HttpConfig, Route, Server, Stack, router};
use runtime_kernel::SystemClock;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longer than anything a test waits for: reaching it is a failure.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    report: JoinHandle<DrainReport>,
}

impl Running {
    /// A server that listens and does not serve yet.
    pub(crate) async fn bound(mut config: HttpConfig, routes: Vec<Route>) -> Server {
        config.port = 0;
        let app = router(routes, Stack::default(), ());
        Server::bind(config, app, SystemClock::shared()).await.unwrap()
    }

    pub(crate) async fn start(config: HttpConfig, routes: Vec<Route>) -> Self {
        let server = Self::bound(config, routes).await;
        let address = server.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let report = tokio::spawn(server.serve(async { stopped.await.unwrap_or_default() }));
        Self { address, stop: Some(stop), report }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a new connection and reads until the server closes it.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut stream = self.connect().await;
        // The server may refuse before it has taken everything.
        let _ = stream.write_all(bytes.as_ref()).await;
        Answer::read(&mut stream).await
    }

    /// Begins to drain; the report follows.
    pub(crate) fn stop(mut self) -> JoinHandle<DrainReport> {
        self.stop.take().unwrap().send(()).unwrap();
        self.report
    }
}

/// A response as it came over the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Reads one response: by its `content-length`, or to the end of the connection.
    pub(crate) async fn read(stream: &mut TcpStream) -> Self {
        let text = tokio::time::timeout(LONG, async {
            let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
            loop {
                if whole(&seen) {
                    return seen;
                }
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return seen,
                    Ok(n) => seen.extend_from_slice(&buffer[..n]),
                }
            }
        });
        let text = String::from_utf8(text.await.expect("an answer in time")).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        line.split_once(':').map(|(_, value)| value.trim())
    }

    /// The problem document, checked against RFC 9457 and against the response it came in.
    pub(crate) fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], self.status, "{self:?}");
        for member in ["type", "title", "detail", "code", "request_id"] {
            assert!(problem[member].is_string(), "{member} in {self:?}");
        }
        assert_eq!(
            problem["request_id"].as_str().map(str::to_ascii_lowercase).as_deref(),
            self.header("x-request-id")
        );
        problem
    }
}

fn whole(seen: &[u8]) -> bool {
    let text = String::from_utf8_lossy(seen).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if head.starts_with("http/1.1 1") {
        return false;
    }
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}

/// Waits until the peer has closed the connection, ignoring what it still sends.
pub(crate) async fn closed(stream: &mut TcpStream) {
    let end = tokio::time::timeout(LONG, async {
        let mut buffer = [0; 1024];
        while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {}
    });
    end.await.expect("the server closes the connection");
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
}
