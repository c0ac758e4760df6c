//! A proxy before Postgres that counts what clients ask of it.
//!
//! It reads the frontend's messages ([protocol 3.0](https://www.postgresql.org/docs/15/protocol-message-formats.html)), so
//! the count is exact: nothing is sampled, and nothing of the server's own is among it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What has been asked so far, over all connections.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Statements run, `BEGIN` and `COMMIT` among them.
    pub statements: u64,
    /// How often a client sent something after the server had spoken, and so had waited for it.
    pub trips: u64,
}

#[derive(Debug, Default)]
struct Counts {
    statements: AtomicU64,
    trips: AtomicU64,
}

/// The proxy; it stops taking connections when dropped.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    counts: Arc<Counts>,
    task: tokio::task::JoinHandle<()>,
}

impl Wire {
    /// Stands before the server of this URL.
    pub async fn before(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let counts = Arc::<Counts>::default();
        let (target, all) = (host(url).to_owned(), Arc::clone(&counts));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target.clone(), Arc::clone(&all)));
            }
        });
        Self { address, counts, task }
    }

    /// The URL of the same database through this proxy.
    pub fn through(&self, url: &str) -> String {
        url.replace(host(url), &self.address.to_string())
    }

    pub fn asked(&self) -> Asked {
        Asked {
            statements: self.counts.statements.load(Ordering::SeqCst),
            trips: self.counts.trips.load(Ordering::SeqCst),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The `host:port` of a URL.
fn host(url: &str) -> &str {
    let rest = url.split_once('@').map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(host, _)| host)
}

async fn carry(client: TcpStream, target: String, counts: Arc<Counts>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    client.set_nodelay(true).expect("a socket");
    server.set_nodelay(true).expect("a socket");
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let server_spoke = AtomicBool::new(true);
    let asks = async {
        let (mut buffer, mut reader) = (vec![0; 64 * 1024], Reader::default());
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            let trip = server_spoke.swap(false, Ordering::SeqCst);
            counts.trips.fetch_add(u64::from(trip), Ordering::SeqCst);
            counts.statements.fetch_add(reader.statements(&buffer[..read]), Ordering::SeqCst);
            if to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let answers = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            server_spoke.store(true, Ordering::SeqCst);
            if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = asks => {}
        () = answers => {}
    }
}

/// Follows the messages of one client.
#[derive(Debug, Default)]
struct Reader {
    /// Whether the startup message, which has no type, has passed.
    started: bool,
    /// The head of a message that has not come whole.
    head: Vec<u8>,
    /// Bytes of the present message still to come.
    rest: usize,
}

impl Reader {
    /// Statements that begin within these bytes.
    fn statements(&mut self, mut bytes: &[u8]) -> u64 {
        // TLS and GSS are asked for in the form of a startup message.
        const REQUESTS: [u32; 2] = [80_877_103, 80_877_104];
        let mut found = 0;
        while !bytes.is_empty() {
            if self.rest > 0 {
                let passed = self.rest.min(bytes.len());
                self.rest -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let whole = if self.started { 5 } else { 8 };
            let taken = (whole - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.head.len() < whole {
                continue;
            }
            let number =
                |at: usize| u32::from_be_bytes(self.head[at..at + 4].try_into().expect("four bytes"));
            if self.started {
                found += u64::from(matches!(self.head[0], b'Q' | b'E'));
                self.rest = number(1) as usize - 4;
            } else {
                self.started = !REQUESTS.contains(&number(4));
                self.rest = number(0) as usize - 8;
            }
            self.head.clear();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;

    /// However the bytes are cut, the count is the same.
    #[test]
    fn statements_are_counted_across_any_cut() {
        let mut all = [8u32.to_be_bytes(), 80_877_103u32.to_be_bytes()].concat();
        all.extend([12u32.to_be_bytes(), 196_608u32.to_be_bytes(), *b"u\0\0\0"].concat());
        for (kind, body) in
            [(b'Q', "BEGIN\0"), (b'P', "\0EQE\0\0\0"), (b'E', "\0\0\0\0\0"), (b'S', ""), (b'd', "QQQQQ")]
        {
            all.push(kind);
            all.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
            all.extend(body.bytes());
        }
        for size in 1..all.len() {
            let mut reader = Reader::default();
            let found: u64 = all.chunks(size).map(|part| reader.statements(part)).sum();
            assert_eq!(found, 2, "cut into {size}");
        }
    }
}
