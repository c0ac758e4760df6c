//! Tables as they go into the documentation, and what several rounds of a measurement make of a number.

use crate::report::{median, say};

/// The rounds of one number.
#[derive(Clone, Debug, Default)]
pub struct Rounds(pub Vec<f64>);

impl Rounds {
    pub fn median(&self) -> f64 {
        median(&self.0)
    }

    /// `median | min | max`, in whole numbers.
    pub fn cells(&self) -> String {
        let min = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let max = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{} | {} | {}", whole(self.median()), whole(min), whole(max))
    }
}

/// A heading and the command that makes the table, then its columns.
pub fn head(title: &str, command: &str, columns: &[&str]) {
    say(&format!("\n### {title}\n\n`{command}`\n\n| {} |", columns.join(" | ")));
    let rule = columns.iter().enumerate().map(|(n, _)| if n == 0 { "---" } else { "---:" });
    say(&format!("| {} |", rule.collect::<Vec<_>>().join(" | ")));
}

/// One row of it.
pub fn row(cells: &[String]) {
    say(&format!("| {} |", cells.join(" | ")));
}

/// A number with its thousands apart.
pub fn whole(number: f64) -> String {
    if !number.is_finite() {
        return "-".to_owned();
    }
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0.0 && digits != "0" { format!("-{text}") } else { text }
}

/// A number with two places.
pub fn fine(number: f64) -> String {
    format!("{number:.2}")
}
