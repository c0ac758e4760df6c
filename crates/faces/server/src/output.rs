//! What a command prints: words for people, JSON for programs.

use std::fmt::Display;
use std::io::Write;

use serde::Serialize;

use crate::cli::{Color, Global};

/// Where and how a command prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// Follows `--json` and `--color`.
    pub(crate) fn new(global: &Global) -> Self {
        match global.color {
            Color::Auto => {}
            Color::Always => anstream::ColorChoice::Always.write_global(),
            Color::Never => anstream::ColorChoice::Never.write_global(),
        }
        Self { json: global.json }
    }

    /// Prints a value: as JSON, or as the words `text` makes of it.
    ///
    /// A closed pipe (`runtime jobs list | head`) is not an error.
    pub(crate) fn print<T: Serialize, D: Display>(self, value: &T, text: impl FnOnce(&T) -> D) {
        let rendered = if self.json {
            serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
        } else {
            text(value).to_string()
        };
        let _ = writeln!(anstream::stdout(), "{}", rendered.trim_end());
    }

    /// Prints a failure on standard error.
    pub(crate) fn failure(self, code: &str, message: &str) {
        if self.json {
            let value = serde_json::json!({ "error": { "code": code, "message": message } });
            let _ = writeln!(std::io::stderr(), "{value}");
        } else {
            let _ = writeln!(anstream::stderr(), "{RED}error{RESET}: {message} {DIM}({code}){RESET}");
        }
    }
}

pub(crate) const RED: &str = "\u{1b}[1;31m";
pub(crate) const GREEN: &str = "\u{1b}[32m";
pub(crate) const YELLOW: &str = "\u{1b}[33m";
pub(crate) const BOLD: &str = "\u{1b}[1m";
pub(crate) const DIM: &str = "\u{1b}[2m";
pub(crate) const RESET: &str = "\u{1b}[0m";

/// A text table: columns as wide as their widest cell, the last one open.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(cell);
            let pad = width.saturating_sub(cell.chars().count()) + 2;
            text.extend(std::iter::repeat_n(' ', pad));
        }
        text.trim_end().to_owned()
    };
    let mut text = format!("{BOLD}{}{RESET}\n", line(&mut header.iter().copied()));
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text =
            table(&["id", "state"], &[vec!["1".into(), "done".into()], vec!["1000".into(), "x".into()]]);
        assert_eq!(text, format!("{BOLD}id    state{RESET}\n1     done\n1000  x\n"));
    }
}
