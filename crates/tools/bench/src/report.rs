//! One measured row, as JSON lines and as a table.

use serde::Serialize;

/// Ours beside a peer, measured in the same run.
#[derive(Debug, Serialize)]
pub struct Row {
    pub area: &'static str,
    pub row: String,
    pub unit: &'static str,
    pub ours: f64,
    pub peer: f64,
    pub peer_name: String,
    /// How many times better ours is, whichever way the unit points.
    pub ratio: f64,
    pub rounds: usize,
}

/// Which way a unit points.
#[derive(Clone, Copy, Debug)]
pub enum Better {
    More,
    Less,
}

impl Row {
    /// A row of medians over the rounds of both.
    pub fn of(
        area: &'static str,
        row: &str,
        unit: &'static str,
        better: Better,
        ours: &[f64],
        peer: (&str, &[f64]),
    ) -> Self {
        let (o, p) = (median(ours), median(peer.1));
        let ratio = match better {
            Better::More => o / p,
            Better::Less => p / o,
        };
        let round = |x: f64| (x * 1000.0).round() / 1000.0;
        Self {
            area,
            row: row.to_owned(),
            unit,
            ours: round(o),
            peer: round(p),
            peer_name: peer.0.to_owned(),
            ratio: round(ratio),
            rounds: ours.len(),
        }
    }

    /// Prints the row.
    pub fn print(&self, json: bool) {
        if json {
            println!("{}", serde_json::to_string(self).expect("a row is plain data"));
        } else {
            println!(
                "{:>7.2}x  {:<10} {:<44} ours {:>12.2} {:<8} {} {:>12.2} ({} rounds)",
                self.ratio, self.area, self.row, self.ours, self.unit, self.peer_name, self.peer, self.rounds
            );
        }
    }
}

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Says something for people: beside the rows, or apart from them where those are JSON.
pub fn say(text: &str) {
    if std::env::args().any(|arg| arg == "--json") {
        eprintln!("{text}");
    } else {
        println!("{text}");
    }
}
