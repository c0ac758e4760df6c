//! The writers under their laws, and what is a file's own.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use runtime_audit::{
    AuditError, AuditEvent, AuditWriter, Durability, FanOut, FileWriter, MemoryWriter, NoopWriter,
    StreamWriter, laws,
};

fn parse(text: &str) -> Vec<AuditEvent> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn in_file(path: &Path) -> Vec<AuditEvent> {
    parse(&fs::read_to_string(path).unwrap_or_default())
}

#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Vec<u8>>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A pipe takes what it takes.
        let some = bytes.len().min(7);
        self.0.lock().unwrap().extend_from_slice(&bytes[..some]);
        Ok(some)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn memory_keeps_the_laws() {
    let writer = MemoryWriter::new();
    laws::all(&writer, || async { writer.events() }).await;
}

#[tokio::test]
async fn a_stream_keeps_the_laws() {
    let pipe = Pipe::default();
    laws::all(&StreamWriter::new(pipe.clone()), || async {
        parse(std::str::from_utf8(&pipe.0.lock().unwrap()).unwrap())
    })
    .await;
}

#[tokio::test]
async fn a_file_keeps_the_laws() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    laws::all(&FileWriter::new(&path), || async { in_file(&path) }).await;
}

#[tokio::test]
async fn a_fan_out_keeps_the_laws_at_each_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let memory = MemoryWriter::new();
    let writer = FanOut::default().and(memory.clone()).and(FileWriter::new(&path)).and(NoopWriter);
    laws::all(&writer, || async {
        assert_eq!(memory.events(), in_file(&path));
        memory.events()
    })
    .await;
}

async fn put(writer: &impl AuditWriter, action: &'static str) -> Result<(), AuditError> {
    writer.write(&[AuditEvent::new(action)], Durability::Durable).await
}

fn actions(path: &Path) -> Vec<String> {
    in_file(path).into_iter().map(|event| event.action.into_owned()).collect()
}

#[tokio::test]
async fn another_process_appends_where_the_last_one_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    put(&FileWriter::new(&path), "one").await.unwrap();
    put(&FileWriter::new(&path), "two").await.unwrap();
    assert_eq!(actions(&path), ["one", "two"]);
}

#[tokio::test]
async fn a_torn_line_takes_no_other_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    fs::write(&path, r#"{"id":"0190d1a2-"#).unwrap();
    let writer = FileWriter::new(&path);
    put(&writer, "one").await.unwrap();
    put(&writer, "two").await.unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let (torn, whole) = text.split_once('\n').unwrap();
    assert_eq!(torn, r#"{"id":"0190d1a2-"#);
    assert_eq!(parse(whole).len(), 2);
}

#[tokio::test]
async fn a_rotated_file_is_left_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("audit.jsonl"), dir.path().join("audit.1"));
    let writer = FileWriter::new(&path);
    put(&writer, "one").await.unwrap();
    fs::rename(&path, &old).unwrap();
    put(&writer, "two").await.unwrap();
    assert_eq!((actions(&old), actions(&path)), (vec!["one".to_owned()], vec!["two".to_owned()]));
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_owner_reads_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    put(&FileWriter::new(&path), "one").await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_an_error_and_a_later_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing").join("audit.jsonl");
    let writer = FileWriter::new(&path);
    assert!(matches!(put(&writer, "one").await, Err(AuditError::Write { writer: "a file", .. })));
    fs::create_dir(path.parent().unwrap()).unwrap();
    put(&writer, "two").await.unwrap();
    assert_eq!(actions(&path), ["two"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_told() {
    assert!(matches!(
        put(&StreamWriter::new(fs::File::create("/dev/full").unwrap()), "one").await,
        Err(AuditError::Write { .. })
    ));
}

#[tokio::test]
async fn one_failing_writer_does_not_keep_events_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let memory = MemoryWriter::new();
    let writer = FanOut::default().and(FileWriter::new(dir.path().join("no/such"))).and(memory.clone());
    assert!(put(&writer, "one").await.is_err());
    assert_eq!(memory.events().len(), 1);
}
