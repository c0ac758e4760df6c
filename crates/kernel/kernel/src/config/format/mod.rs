//! Reads configuration files and keeps the line of every key.

mod json;
mod toml;
mod yaml;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Problem, ProblemKind};
use super::node::{Node, Value};
use super::source::{Layer, Place, Source};

/// A configuration file larger than this is refused: it is a mistake or an attack.
const MAX_BYTES: u64 = 4 << 20;

/// Deeper nesting than this is refused.
const MAX_DEPTH: usize = 64;

/// The endings looked for, in the order they are tried.
pub(super) const ENDINGS: [&str; 4] = ["toml", "yaml", "yml", "json"];

/// Why a text is not well-formed, and at which line (from 1).
struct Malformed {
    line: usize,
    message: String,
}

impl Malformed {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// A file being read: makes the sources of its nodes.
struct File {
    path: Arc<PathBuf>,
}

impl File {
    fn source(&self, line: usize) -> Source {
        Source::new(Layer::File, Place::File { path: Arc::clone(&self.path), line })
    }
}

/// Finds `<stem>.toml`, `.yaml`, `.yml` or `.json` in a directory. None is fine; two is a mistake.
pub(super) fn find(directory: &Path, stem: &str) -> Result<Option<PathBuf>, Problem> {
    let mut found =
        ENDINGS.iter().map(|ending| directory.join(format!("{stem}.{ending}"))).filter(|path| path.exists());
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => Err(Problem::new(
            ProblemKind::File,
            "",
            format!("both {} and {} exist: keep one", first.display(), second.display()),
        )),
        (first, _) => Ok(first),
    }
}

/// Reads a file whose ending names its format.
pub(super) fn read(path: &Path) -> Result<Node, Problem> {
    let text = read_text(path)?;
    parse(path, &text)
}

/// The text of a file of bounded size.
pub(super) fn read_text(path: &Path) -> Result<String, Problem> {
    let refused =
        |why: String| Problem::new(ProblemKind::File, "", format!("cannot read {}: {why}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| refused(error.to_string()))?;
    if metadata.len() > MAX_BYTES {
        return Err(refused(format!("larger than {MAX_BYTES} bytes")));
    }
    std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))
}

fn parse(path: &Path, text: &str) -> Result<Node, Problem> {
    let file = File { path: Arc::new(path.to_owned()) };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed = match path.extension().and_then(|ending| ending.to_str()) {
        Some("toml") => toml::parse(&file, text),
        Some("yaml" | "yml") => yaml::parse(&file, text),
        Some("json") => json::parse(&file, text),
        _ => {
            return Err(Problem::new(
                ProblemKind::File,
                "",
                format!("{} must end in .toml, .yaml, .yml or .json", path.display()),
            ));
        }
    };
    let broken =
        |line, message: String| Problem::new(ProblemKind::File, "", message).at(Some(file.source(line)));
    let node = parsed.map_err(|malformed| broken(malformed.line, malformed.message))?;
    match node.value {
        Value::Table(_) => Ok(node),
        // An empty document is a configuration that sets nothing.
        Value::Null => Ok(Node::table(node.source)),
        _ => Err(broken(1, "the file must hold a table of sections".to_owned())),
    }
}

/// The line (from 1) of a byte offset.
fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
