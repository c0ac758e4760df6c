//! Ways to a server: through a proxy, and with a certificate of our own.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use axum::{Router, routing::any};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use runtime_client::{Client, ClientConfig, ClientError, Guard};
use runtime_kernel::SystemClock;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::server::{Script, context, serve};

/// Answers every request itself, with the target it was asked for.
async fn proxy() -> SocketAddr {
    let answer = any(|request: Request<Body>| async move { format!("via proxy to {}", request.uri()) });
    serve(Router::new().fallback(answer)).await
}

#[tokio::test]
async fn requests_go_through_the_proxy_but_for_those_that_shall_not() {
    let direct = serve(Router::new().fallback(any(|| async { "direct" }))).await;
    let mut config = ClientConfig::default();
    config.proxy = Some(format!("http://{}", proxy().await));
    config.no_proxy = vec!["127.0.0.1".to_owned()];
    let client = Client::builder(config, SystemClock::shared())
        .guard(Guard::local())
        .lookup(Script::new(&[&["93.184.216.34"]]))
        .build()
        .unwrap();
    let get = async |url: &str| client.get(url).send(&context()).await.unwrap().text().await.unwrap();
    assert_eq!(get("http://example.com/a?b=c").await, "via proxy to http://example.com/a?b=c");
    assert_eq!(get(&format!("http://{direct}/")).await, "direct");
}

#[tokio::test]
async fn the_guard_judges_what_goes_through_the_proxy() {
    let mut config = ClientConfig::default();
    config.proxy = Some(format!("http://{}", proxy().await));
    let client =
        Client::builder(config, SystemClock::shared()).lookup(Script::new(&[&["10.0.0.7"]])).build().unwrap();
    for url in ["http://intranet.example/", "http://169.254.169.254/", "http://[::1]/"] {
        let error = client.get(url).send(&context()).await.unwrap_err();
        assert!(matches!(error, ClientError::Refused(_)), "{url}: {error}");
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_not_left_to_the_proxy() {
    let mut config = ClientConfig::default();
    config.proxy = Some(format!("http://{}", proxy().await));
    let client = Client::builder(config, SystemClock::shared()).lookup(Script::new(&[&[]])).build().unwrap();
    let error = client.get("http://intranet.example/").send(&context()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { .. }), "{error}");
}

#[tokio::test]
async fn a_proxy_that_is_none_is_refused_without_being_quoted() {
    let mut config = ClientConfig::default();
    config.proxy = Some("http://user:secret@ bad".to_owned());
    let error = Client::new(config, SystemClock::shared()).unwrap_err().to_string();
    assert!(error.contains("proxy") && !error.contains("secret"), "{error}");
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let (pem, der) = (certificate.pem(), certificate.der().clone());
    Authority { issuer: Issuer::new(params, key), certificate: der, pem }
}

fn signed(by: &Authority, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &by.issuer).unwrap();
    (certificate, key)
}

/// A TLS server that answers whoever shows a certificate of its authority.
async fn strict(authority: &Authority) -> SocketAddr {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let (certificate, key) = signed(authority, "localhost");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut socket) = acceptor.accept(socket).await else { return };
                let _ = socket.read(&mut [0; 1024]).await;
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nwelcome").await;
                let _ = socket.shutdown().await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_shown_ours() {
    let authority = authority();
    let url = format!("https://localhost:{}/", strict(&authority).await.port());
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (certificate, key) = signed(&authority, "client");
    let mut config = ClientConfig::default();
    config.ca_file = Some(write("ca.pem", authority.pem.clone()));
    let get = async |config: ClientConfig| {
        let client = Client::builder(config, SystemClock::shared())
            .guard(Guard::local())
            .lookup(Script::new(&[&["127.0.0.1"]]))
            .build()?;
        client.get(&url).send(&context()).await?.text().await
    };
    assert!(get(config.clone()).await.is_err(), "without one it is turned away");
    config.client_cert_file = Some(write("client.pem", certificate.pem()));
    assert!(matches!(get(config.clone()).await, Err(ClientError::Config { key: "client_cert_file", .. })));
    config.client_key_file = Some(write("client.key", key.serialize_pem()));
    assert_eq!(get(config.clone()).await.unwrap(), "welcome");
    config.client_key_file = Some(write("broken.key", "no key".to_owned()));
    let error = get(config).await.unwrap_err();
    assert!(matches!(error, ClientError::Config { key: "client_key_file", .. }), "{error}");
}
