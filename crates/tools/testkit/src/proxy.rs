//! A TCP proxy that delays, cuts and silences connections on command.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::error::TestkitError;

/// What the network does at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Weather {
    #[default]
    Fair,
    Delayed(Duration),
    /// Bytes are accepted and go nowhere.
    HalfOpen,
}

/// A proxy in front of a server. Stops when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
    cuts: Arc<watch::Sender<u64>>,
    silences: Arc<watch::Sender<u64>>,
    task: tokio::task::JoinHandle<()>,
}

impl FaultProxy {
    /// Listens on a free port and forwards to `target` (`host:port`).
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: impl Into<String>) -> Result<Self, TestkitError> {
        let weather = Arc::new(watch::Sender::new(Weather::Fair));
        let [cuts, silences] = [(); 2].map(|()| Arc::new(watch::Sender::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let target = target.into();
        let (w, c, s) = (Arc::clone(&weather), Arc::clone(&cuts), Arc::clone(&silences));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let network = Network { weather: w.subscribe(), silences: s.subscribe() };
                tokio::spawn(carry(client, target.clone(), network, c.subscribe()));
            }
        });
        Ok(Self { address, weather, cuts, silences, task })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds back every chunk, both ways, for so long.
    pub fn delay(&self, by: Duration) {
        self.weather.send_replace(Weather::Delayed(by));
    }

    /// Takes bytes and passes none on, as a peer that has vanished does.
    pub fn half_open(&self) {
        self.weather.send_replace(Weather::HalfOpen);
    }

    /// Ends every connection at once; new ones are carried as before.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Loses from now on whatever comes over the connections there are, as when the peer has vanished and another has
    /// taken its place; new ones are carried as before.
    pub fn silence(&self) {
        self.silences.send_modify(|silences| *silences += 1);
    }

    /// Passes bytes on as they come, but for connections that were silenced.
    pub fn heal(&self) {
        self.weather.send_replace(Weather::Fair);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

/// What a connection sees of it.
#[derive(Clone)]
struct Network {
    weather: watch::Receiver<Weather>,
    silences: watch::Receiver<u64>,
}

async fn carry(client: TcpStream, target: String, network: Network, mut cuts: watch::Receiver<u64>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::select! {
        _ = cuts.changed() => {}
        () = pump(&mut from_client, &mut to_server, network.clone()) => {}
        () = pump(&mut from_server, &mut to_client, network) => {}
    }
}

async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    Network { mut weather, silences }: Network,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let present = *weather.borrow();
        if let Weather::Delayed(by) = present {
            tokio::time::sleep(by).await;
        }
        if present == Weather::HalfOpen
            && weather.wait_for(|weather| *weather != Weather::HalfOpen).await.is_err()
        {
            return;
        }
        // Silenced since it began, or for good.
        if silences.has_changed().unwrap_or(true) {
            continue;
        }
        if to.write_all(buffer.get(..read).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}
