//! The whole default stack against bare axum with the same handler: requests per second, tail, instructions.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use crate::measure::ROUNDS;
use crate::report::{Better, Row};

/// The whole default stack, the same without its access log, axum alone, and axum under ten layers.
const CONTENDERS: [&str; 4] = ["ours", "ours-quiet", "axum", "axum-layers"];
const ALONE: &str = "axum 0.8 alone";
const LAYERED: &str = "axum 0.8 under ten tower-http layers, logged";

/// Requests per second and p99 under wrk, then user-space instructions per request under callgrind.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    if on_path("wrk") {
        rows.extend(load());
    } else {
        eprintln!("http: `wrk` is not installed (apt-get install wrk): its rows are left out");
    }
    if on_path("valgrind") {
        rows.extend(instructions());
    } else {
        eprintln!("http: `valgrind` is not installed (apt-get install valgrind): its rows are left out");
    }
    rows
}

fn load() -> Vec<Row> {
    let servers = CONTENDERS.map(|which| Server::start(&[], which, None));
    let (mut rps, mut p99) = (CONTENDERS.map(|_| Vec::new()), CONTENDERS.map(|_| Vec::new()));
    for round in 0..=ROUNDS {
        for (index, server) in servers.iter().enumerate() {
            let (r, p) = server.wrk();
            // The first round warms all up.
            if round > 0 {
                rps[index].push(r);
                p99[index].push(p);
            }
        }
    }
    let [rps_ours, rps_quiet, rps_axum, rps_layers] = &rps;
    let [p99_ours, p99_quiet, p99_axum, p99_layers] = &p99;
    let rate = |name, ours: &[f64], peer| Row::of("http", name, "req/s", Better::More, ours, peer);
    let tail = |name, ours: &[f64], peer| Row::of("http", name, "ms", Better::Less, ours, peer);
    vec![
        rate("default stack, wrk -t1 -c64", rps_ours, (ALONE, rps_axum)),
        tail("default stack, wrk -t1 -c64, p99", p99_ours, (ALONE, p99_axum)),
        rate("default stack, wrk -t1 -c64", rps_ours, (LAYERED, rps_layers)),
        tail("default stack, wrk -t1 -c64, p99", p99_ours, (LAYERED, p99_layers)),
        rate("without access log, wrk -t1 -c64", rps_quiet, (ALONE, rps_axum)),
        tail("without access log, wrk -t1 -c64, p99", p99_quiet, (ALONE, p99_axum)),
    ]
}

/// Callgrind counts every instruction; two runs of different length cancel the cost of starting. Counts do not vary
/// from round to round, so there is one.
fn instructions() -> Vec<Row> {
    const SHORT: u32 = 500;
    const LONG: u32 = 2500;
    let [ours, quiet, axum, layers] = CONTENDERS.map(|which| {
        let [short, long] = [SHORT, LONG].map(|requests| {
            let out =
                std::env::temp_dir().join(format!("runtime-bench-{}-{which}-{requests}", std::process::id()));
            let file = format!("--callgrind-out-file={}", out.display());
            let mut server =
                Server::start(&["valgrind", "--quiet", "--tool=callgrind", &file], which, Some(requests));
            server.request(requests);
            server.child.wait().expect("the server ends after its requests");
            let text = std::fs::read_to_string(&out).expect("callgrind wrote its totals");
            let _ = std::fs::remove_file(&out);
            let total = text
                .lines()
                .find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
            total.and_then(|n| n.trim().parse::<f64>().ok()).expect("a total")
        });
        [(long - short) / f64::from(LONG - SHORT)]
    });
    let row = |name, ours: &[f64], peer| Row::of("http", name, "instr", Better::Less, ours, peer);
    vec![
        row("default stack, user-space instructions per request", &ours, (ALONE, &axum)),
        row("default stack, user-space instructions per request", &ours, (LAYERED, &layers)),
        row("without access log, user-space instructions per request", &quiet, (ALONE, &axum)),
    ]
}

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(wrapper: &[&str], which: &str, requests: Option<u32>) -> Self {
        let own = std::env::current_exe().expect("own path");
        let mut command = match wrapper {
            [tool, args @ ..] => {
                let mut command = Command::new(tool);
                command.args(args).arg(own);
                command
            }
            [] => Command::new(own),
        };
        command
            .args(["serve", which])
            .args(requests.map(|n| n.to_string()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut line)
            .expect("the server says its port");
        Self { child, port: line.trim().parse().expect("a port") }
    }

    fn wrk(&self) -> (f64, f64) {
        let url = format!("http://127.0.0.1:{}/hello", self.port);
        let output =
            Command::new("wrk").args(["-t1", "-c64", "-d4s", "--latency", &url]).output().expect("wrk runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!text.contains("Non-2xx"), "{text}");
        let find = |label: &str| {
            text.lines()
                .find_map(|line| line.trim().strip_prefix(label))
                .map(str::trim)
                .map(ToOwned::to_owned)
        };
        let rps = find("Requests/sec:").and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{text}"));
        let p99 = find("99%").map(|time| milliseconds(&time)).unwrap_or_else(|| panic!("{text}"));
        (rps, p99)
    }

    /// Sends requests one after another over one connection.
    fn request(&self, count: u32) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connects");
        stream.set_nodelay(true).expect("a socket option");
        let mut buffer = [0u8; 4096];
        for _ in 0..count {
            stream
                .write_all(
                    b"GET /hello HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
                )
                .expect("sent");
            let mut seen = 0;
            while !buffer[..seen].windows(4).any(|w| w == b"\r\n\r\n") || !buffer[..seen].ends_with(b"hello")
            {
                let n = stream.read(&mut buffer[seen..]).expect("read");
                assert!(n > 0, "the server closed early: {}", String::from_utf8_lossy(&buffer[..seen]));
                seen += n;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn milliseconds(text: &str) -> f64 {
    let number = |unit: &str| text.strip_suffix(unit).and_then(|n| n.parse::<f64>().ok());
    number("us")
        .map(|n| n / 1000.0)
        .or_else(|| number("ms"))
        .or_else(|| number("s").map(|n| n * 1000.0))
        .expect("a time")
}

fn on_path(tool: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()))
}
