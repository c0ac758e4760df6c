//! Buffers that leave memory.

use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use runtime_kernel::units::ByteSize;
use runtime_kernel::{Classify, ErrorKind};
use runtime_limits::{SpillBuffer, SpillConfig, SpillError, SpillPolicy};

fn policy(folder: &Path, memory: u64, total: u64, disk: u64) -> SpillPolicy {
    let mut config = SpillConfig::default();
    config.folder = folder.join("spill");
    config.memory = ByteSize::bytes(memory);
    config.total_memory = ByteSize::bytes(total);
    config.disk = ByteSize::bytes(disk);
    SpillPolicy::new(config).unwrap()
}

fn part(size: usize, seed: u8) -> Bytes {
    (0..size).map(|n| u8::try_from(n % 251).unwrap().wrapping_add(seed)).collect::<Vec<_>>().into()
}

async fn read(buffer: &SpillBuffer) -> Vec<u8> {
    let (mut all, mut reader) = (Vec::new(), buffer.reader());
    while let Some(chunk) = reader.next().await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    all
}

#[tokio::test]
async fn what_is_written_is_read_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy(folder.path(), 1_000, 10_000, 1_000_000);
    for sizes in
        [vec![], vec![0], vec![1_000], vec![999, 1, 1], vec![1_001], vec![200_000, 3, 65_536], vec![10; 500]]
    {
        let (mut buffer, mut expected) = (policy.buffer(), Vec::new());
        for (seed, size) in (0..).zip(&sizes) {
            let bytes = part(*size, u8::try_from(seed % 256).unwrap());
            expected.extend_from_slice(&bytes);
            buffer.write(bytes).await.unwrap();
        }
        let total = u64::try_from(expected.len()).unwrap();
        assert_eq!(
            (buffer.len(), buffer.is_spilled(), buffer.is_empty()),
            (total, total > 1_000, total == 0)
        );
        let (in_memory, on_disk) = if total > 1_000 { (0, total) } else { (total, 0) };
        assert_eq!((policy.in_memory(), policy.on_disk()), (in_memory, on_disk), "{sizes:?}");
        assert!(
            read(&buffer).await == expected && read(&buffer).await == expected,
            "twice the same: {sizes:?}"
        );
    }
    assert_eq!((policy.in_memory(), policy.on_disk()), (0, 0), "all of it is given back");
    assert_eq!(std::fs::read_dir(folder.path().join("spill")).unwrap().count(), 0);
}

#[tokio::test]
async fn buffers_spill_earlier_when_all_of_them_are_too_much() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy(folder.path(), 1_000, 1_500, 10_000);
    let [mut first, mut second] = [policy.buffer(), policy.buffer()];
    first.write(part(1_000, 0)).await.unwrap();
    second.write(part(600, 1)).await.unwrap();
    assert!(!first.is_spilled() && second.is_spilled());
    drop(first);
    let mut third = policy.buffer();
    third.write(part(1_000, 0)).await.unwrap();
    assert!(!third.is_spilled());
}

#[tokio::test]
async fn the_quota_refuses_and_loses_nothing_that_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy(folder.path(), 100, 100, 1_000);
    let [mut first, mut second] = [policy.buffer(), policy.buffer()];
    first.write(part(700, 0)).await.unwrap();
    second.write(part(90, 1)).await.unwrap();
    let error = second.write(part(211, 2)).await.unwrap_err();
    assert!(matches!(error, SpillError::QuotaExceeded { used: 700, asked: 301, .. }), "{error}");
    assert_eq!((error.kind(), policy.on_disk()), (ErrorKind::Unavailable, 700));
    assert_eq!(read(&second).await, part(90, 1));
    drop(first);
    second.write(part(211, 2)).await.unwrap();
    assert_eq!((second.len(), policy.on_disk()), (301, 301));
}

#[test]
fn after_a_write_that_was_dropped_half_way_further_writes_fail() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy(folder.path(), 10, 100, 1_000);
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        // The one thread that could write is busy.
        let (done, busy) = std::sync::mpsc::channel::<()>();
        let thread = tokio::task::spawn_blocking(move || busy.recv());
        let mut buffer = policy.buffer();
        buffer.write(part(8, 0)).await.unwrap();
        let mut spills = Box::pin(buffer.write(part(5, 1)));
        assert!(futures_util::poll!(spills.as_mut()).is_pending());
        drop(spills);
        // The first would fit in memory, and leave a hole before it.
        for size in [2, 5] {
            assert!(matches!(buffer.write(part(size, 2)).await, Err(SpillError::Disk(_))));
        }
        assert_eq!(read(&buffer).await, part(8, 0), "those before are still there");
        drop(done);
        assert!(thread.await.unwrap().is_err());
    });
}

#[tokio::test]
async fn small_parts_take_little_more_memory_than_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy(folder.path(), 300_000, 300_000, 1_000_000);
    let (mut buffer, mut expected) = (policy.buffer(), Vec::new());
    for n in 0..200_000_u32 {
        let size = if n % 20_000 == 19_999 { 5_000 } else { 1 };
        let bytes = part(size, u8::try_from(n % 251).unwrap());
        expected.extend_from_slice(&bytes);
        buffer.write(bytes).await.unwrap();
        buffer.write(Bytes::new()).await.unwrap();
    }
    assert!(!buffer.is_spilled());
    let (mut all, mut pieces, mut reader) = (Vec::new(), 0, buffer.reader());
    while let Some(piece) = reader.next().await.unwrap() {
        all.extend_from_slice(&piece);
        pieces += 1;
    }
    assert!(all == expected && reader.next().await.unwrap().is_none());
    assert_eq!(pieces, 20, "ten large parts and what was between them");
    buffer.write(part(100_000, 3)).await.unwrap();
    expected.extend_from_slice(&part(100_000, 3));
    assert!(buffer.is_spilled() && read(&buffer).await == expected);
}

#[tokio::test]
async fn debug_says_how_much_it_holds_and_not_what() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy(folder.path(), 100, 100, 1_000);
    let mut buffer = policy.buffer();
    buffer.write(Bytes::from_static(b"secret")).await.unwrap();
    for text in [format!("{buffer:?}"), format!("{:?}", buffer.reader())] {
        assert!(text.contains("in_memory: 6") && !text.contains("secret"), "{text}");
    }
}

/// Set for a test that has started itself once more, in a process that may be treated badly.
const CHILD: &str = "SPILL_FOLDER";

#[tokio::test]
async fn a_disk_that_is_full_is_told_and_the_reservation_is_given_back() {
    if let Ok(folder) = std::env::var(CHILD) {
        let policy = policy(Path::new(&folder), 100, 100, 1_000_000);
        let mut buffer = policy.buffer();
        buffer.write(part(100, 0)).await.unwrap();
        let error = buffer.write(part(10_000, 1)).await.unwrap_err();
        assert_eq!(read(&buffer).await, part(100, 0));
        println!("{}, {} on disk, {} kept", error.code(), policy.on_disk(), buffer.len());
        return;
    }
    // A file system of its own would need root: the process's limit on file sizes fails writes just so.
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg("it::spill::a_disk_that_is_full_is_told_and_the_reservation_is_given_back")
        .env(CHILD, folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("limits.spill_disk, 0 on disk, 100 kept"), "{text}");
}

#[tokio::test]
async fn nothing_is_left_of_a_process_that_was_killed() {
    if let Ok(folder) = std::env::var(CHILD) {
        let mut buffer = policy(Path::new(&folder), 100, 100, 1_000_000).buffer();
        buffer.write(part(100_000, 0)).await.unwrap();
        println!("spilled {}", buffer.len());
        return std::future::pending().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "it::spill::nothing_is_left_of_a_process_that_was_killed", "--nocapture"])
        .env(CHILD, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("spilled 100000")));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("spill")).unwrap().count(), 0);
}

#[test]
fn a_folder_that_cannot_be_is_refused_at_the_start() {
    let mut config = SpillConfig::default();
    config.folder = "/dev/null/spill".into();
    assert_eq!(SpillPolicy::new(config).unwrap_err().key, "spill.folder");
}
