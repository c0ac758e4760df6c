//! The servers and tools tests need: already running by URL, else a binary on the machine, else Debian's packages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::shell::{self, Outcome, on_path};

struct Server {
    name: &'static str,
    url: &'static str,
    binary: &'static str,
    package: &'static str,
}

const SERVERS: [Server; 5] = [
    Server { name: "Postgres", url: "RUNTIME_TEST_POSTGRES_URL", binary: "postgres", package: "postgresql" },
    Server { name: "Redis", url: "RUNTIME_TEST_REDIS_URL", binary: "redis-server", package: "redis-server" },
    Server { name: "NATS", url: "RUNTIME_TEST_NATS_URL", binary: "nats-server", package: "nats-server" },
    // Started by the tests that need it, each its own.
    Server { name: "etcd", url: "", binary: "etcd", package: "etcd-server" },
    // The README's own commands are run.
    Server { name: "curl", url: "", binary: "curl", package: "curl" },
];

/// Finds each server, else installs it, else says the exact command to type.
///
/// The test kit starts the binaries it finds, once per run and on free ports.
pub(crate) fn ensure() -> Outcome {
    for server in SERVERS {
        if !server.url.is_empty() && std::env::var(server.url).is_ok_and(|url| !url.is_empty()) {
            println!("{}: running, by {}", server.name, server.url);
        } else if let Some(path) = find(server.binary) {
            println!("{}: {}", server.name, path.display());
        } else {
            install(&server)?;
        }
    }
    Ok(())
}

fn find(binary: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = versions.map(|version| version.path().join("bin"));
    // Debian's daemons live where a plain user's path may not look.
    let folders = folders.chain([PathBuf::from("/usr/sbin")]);
    std::env::split_paths(&path).chain(folders).map(|folder| folder.join(binary)).find(|file| file.is_file())
}

fn install(server: &Server) -> Outcome {
    let mut by_hand =
        format!("{} is not here. Install it with `sudo apt-get install -y {}`", server.name, server.package);
    if !server.url.is_empty() {
        by_hand = format!("{by_hand}, or name a running one in {}", server.url);
    }
    if !on_path("apt-get") {
        return Err(by_hand);
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    let sudo = || {
        Command::new("sudo").args(["-n", "true"]).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    let prefix: &[&str] = match root {
        true => &[],
        false if on_path("sudo") && sudo() => &["sudo", "-n"],
        false => return Err(by_hand),
    };
    let apt = |args: &[&str]| {
        let words: Vec<&str> =
            prefix.iter().copied().chain(["apt-get", "-q", "-y"]).chain(args.iter().copied()).collect();
        let (program, rest) = words.split_first().ok_or("nothing to run")?;
        shell::run(
            Command::new(program).args(rest).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()),
        )
    };
    if !Path::new("/var/lib/apt/lists")
        .read_dir()
        .is_ok_and(|mut lists| lists.any(|l| l.is_ok_and(|l| l.path().is_file() && l.file_name() != "lock")))
    {
        apt(&["update"]).map_err(|error| format!("{error}\n{by_hand}"))?;
    }
    apt(&["install", "--no-install-recommends", server.package])
        .or_else(|_| {
            apt(&["update"]).and_then(|()| apt(&["install", "--no-install-recommends", server.package]))
        })
        .map_err(|error| format!("{error}\n{by_hand}"))?;
    find(server.binary).map(|_| ()).ok_or(by_hand)
}
