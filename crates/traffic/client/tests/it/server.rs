//! A server on a free port, and clients that may call it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use runtime_client::{Client, ClientConfig, Guard, Lookup, LookupFuture};
use runtime_kernel::{Context, Source, SystemClock};
use runtime_resilience::SharedRng;
use tokio::net::TcpListener;

/// Serves a router for as long as the test runs.
pub(crate) async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Answers every connection with these bytes and then leaves it open.
pub(crate) async fn serve_raw(answer: &'static [u8]) -> SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _ = socket.read(&mut head).await;
            let _ = socket.write_all(answer).await;
            open.push(socket);
        }
    });
    address
}

pub(crate) fn client_with(config: ClientConfig, guard: Guard) -> Client {
    Client::builder(config, SystemClock::shared()).guard(guard).rng(SharedRng::seeded(1)).build().unwrap()
}

/// A client that may call this machine.
pub(crate) fn local() -> Client {
    client_with(ClientConfig::default(), Guard::local())
}

pub(crate) fn context() -> Context {
    Context::new(Source::Internal, &SystemClock)
}

/// Answers with one address after the other, the last one for ever.
#[derive(Clone)]
pub(crate) struct Script {
    answers: Arc<Vec<Vec<IpAddr>>>,
    asked: Arc<AtomicUsize>,
}

impl Script {
    pub(crate) fn new(answers: &[&[&str]]) -> Self {
        let answers =
            answers.iter().map(|list| list.iter().map(|ip| ip.parse().unwrap()).collect()).collect();
        Self { answers: Arc::new(answers), asked: Arc::default() }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Lookup for Script {
    fn lookup(&self, _host: &str) -> LookupFuture {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst).min(self.answers.len() - 1);
        let found = self.answers[turn].iter().map(|ip| SocketAddr::new(*ip, 0)).collect();
        Box::pin(async move { io::Result::Ok(found) })
    }
}
