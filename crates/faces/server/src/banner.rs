//! What a person sees at the start: where it listens, where its data lives, and once, the first key.

use std::io::Write;

use crate::output::{BOLD, DIM, GREEN, RESET};

/// Tells where data lives, before anything is started.
pub(crate) fn starting(mode: &str, env: &str, data: &str) {
    say(&format!(
        "{BOLD}runtime{RESET} {} {DIM}mode {mode}, env {env}{RESET}\n  data       {data}",
        env!("CARGO_PKG_VERSION")
    ));
}

/// Tells the address, once connections are taken.
pub(crate) fn listening(address: &str) {
    say(&format!("  {GREEN}listening{RESET}  http://{address}"));
}

/// Shows the first key. It is printed, never logged, and cannot be shown again.
pub(crate) fn first_key(key: &str) {
    say(&format!(
        "  {BOLD}admin key{RESET}  {key}\n             {DIM}shown this once; `runtime keys` manages it{RESET}"
    ));
}

fn say(text: &str) {
    let mut out = anstream::stdout();
    // A closed standard output is no reason not to serve.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
