//! What CI runs: one small file per command.
fn main() {}
