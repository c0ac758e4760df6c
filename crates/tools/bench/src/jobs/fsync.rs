//! How fast a disk keeps a write at the moment, said beside what was measured on it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Writes of 8 KiB kept per second, each by its own `fdatasync`, as `pg_test_fsync` measures them for a second.
pub fn per_second(folder: &str) -> Option<f64> {
    let file = format!("{folder}/fsync-probe-{}", std::process::id());
    let mut child = Command::new(program()?)
        .args(["-s", "1", "-f", &file])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let lines = BufReader::new(child.stdout.take()?).lines().map_while(Result::ok);
    let line = lines.into_iter().find(|line| line.trim_start().starts_with("fdatasync"));
    // The other ways of keeping a write would take it half a minute.
    drop(child.kill());
    drop(child.wait());
    drop(std::fs::remove_file(&file));
    line?.split_whitespace().nth(1)?.parse().ok()
}

fn program() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin/pg_test_fsync")).collect();
    found.sort();
    found.into_iter().rev().find(|program| Path::new(program).exists())
}
