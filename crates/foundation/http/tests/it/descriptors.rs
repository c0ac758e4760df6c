//! Running out of file descriptors, in a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn hello(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn with_64_descriptors_and_100_idle_connections_the_server_lives_and_recovers() {
    let tests = std::env::current_exe().unwrap();
    let example = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples/hello");
    assert!(example.exists(), "build it first: cargo build -p runtime-http --example hello");
    let limited = format!("ulimit -n 64; exec '{}'", example.display());
    let mut server = Ended(Command::new("sh").args(["-c", &limited]).stdout(Stdio::piped()).spawn().unwrap());
    let mut address = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let address = address.trim();

    let idle: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert!(hello(address).ends_with("\"hello\""), "served while descriptors are short");
    assert!(server.0.try_wait().unwrap().is_none(), "it lives");
    drop(idle);
    for _ in 0..80 {
        assert!(hello(address).ends_with("\"hello\""), "and recovers");
    }
}
