//! A proxy in front of Postgres that knows its messages, and has a point after every statement and around every commit.
//!
//! Source: PostgreSQL's documentation, "Frontend/Backend Protocol", "Message Formats". Statements are taken one after
//! another, and an answer is held back until its point is passed: what the server has done is settled by then, and the
//! client does not know it yet.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::gate::Gate;

/// Listens until dropped; every connection it carries ends with it.
#[derive(Debug)]
pub(crate) struct Wire {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Wire {
    /// Carries connections to `target` (`host:port`) past a gate.
    pub(crate) async fn start(target: String, gate: Arc<Gate>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (target, gate) = (target.clone(), Arc::clone(&gate));
                carried.spawn(async move {
                    // Whichever side ends first, or is cut: both are closed.
                    let _ = carry(client, &target, &gate).await;
                });
            }
        });
        Self { address, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One side's messages, read whole.
struct Frames {
    from: OwnedReadHalf,
    buffer: Vec<u8>,
    /// The first message of a client has no type.
    first: bool,
}

struct Frame {
    kind: u8,
    bytes: Vec<u8>,
}

impl Frames {
    fn new(from: OwnedReadHalf, first: bool) -> Self {
        Self { from, buffer: Vec::new(), first }
    }

    fn whole(&mut self) -> Option<Frame> {
        let head = usize::from(!self.first);
        let length = self.buffer.get(head..head + 4)?;
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize + head;
        if self.buffer.len() < length {
            return None;
        }
        let rest = self.buffer.split_off(length);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        let kind = if self.first { 0 } else { bytes[0] };
        self.first = false;
        Some(Frame { kind, bytes })
    }

    /// The next message. May be dropped while it waits.
    async fn next(&mut self) -> std::io::Result<Frame> {
        loop {
            if let Some(frame) = self.whole() {
                return Ok(frame);
            }
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

async fn carry(client: TcpStream, target: &str, gate: &Gate) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let (mut asked, mut told) = (Frames::new(from_client, true), Frames::new(from_server, false));
    let mut executes = false;
    loop {
        let frame = tokio::select! {
            frame = asked.next() => frame?,
            // What nobody asked for: a notification, a notice, the end.
            frame = told.next() => {
                to_client.write_all(&frame?.bytes).await?;
                continue;
            }
        };
        let commits = frame.kind == b'Q' && frame.bytes.get(5..11) == Some(b"COMMIT");
        if commits {
            passed(gate).await?;
        }
        to_server.write_all(&frame.bytes).await?;
        match frame.kind {
            b'E' => executes = true,
            // The start, a statement of the simple protocol, the end of a copy, the end of a pipeline.
            0 | b'Q' | b'c' | b'f' | b'S' => {
                let answer = answer(&mut told).await?;
                let matters = match frame.kind {
                    b'S' => std::mem::take(&mut executes),
                    kind => kind != 0,
                };
                if commits {
                    passed(gate).await?;
                } else if matters {
                    gate.lesser_point().await.map_err(|_| std::io::ErrorKind::ConnectionReset)?;
                }
                to_client.write_all(&answer).await?;
            }
            _ => {}
        }
    }
}

async fn passed(gate: &Gate) -> std::io::Result<()> {
    gate.point().await.map_err(|_| std::io::ErrorKind::ConnectionReset.into())
}

/// Everything up to "ready for query", or to "send your copy".
async fn answer(told: &mut Frames) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let frame = told.next().await?;
        all.extend_from_slice(&frame.bytes);
        if matches!(frame.kind, b'Z' | b'G') {
            return Ok(all);
        }
    }
}
