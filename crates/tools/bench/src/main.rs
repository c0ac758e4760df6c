//! `bench [area] [--json]`: every claim of speed against its peer, in one run.
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod breaker;
mod bus;
mod container;
mod cron;
mod http;
mod jobs;
mod limiter;
mod limits;
mod measure;
mod pipeline;
mod report;
mod serve;
mod shared;

type Area = (&'static str, fn() -> Vec<report::Row>);
const AREAS: [Area; 12] = [
    ("breaker", breaker::rows),
    ("bus", bus::rows),
    ("container", container::rows),
    ("cron", cron::rows),
    ("http", http::rows),
    ("jobs", jobs::rows),
    ("jobs-growth", jobs::growth_rows),
    ("jobs-idle", jobs::idle_rows),
    ("limiter", limiter::rows),
    ("limits", limits::rows),
    ("pipeline", pipeline::rows),
    ("shared", shared::rows),
];

/// Takes the better part of an hour, so only when it is asked for.
const LONG: &str = "jobs-growth";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, which, rest @ ..] = args.as_slice()
        && serve == "serve"
    {
        return serve::run(which, rest.first().map(|n| n.parse().expect("a number of requests")));
    }
    if let [rss, which] = args.as_slice()
        && rss == "rss"
    {
        return limiter::rss(which);
    }
    let json = args.iter().any(|arg| arg == "--json");
    let wanted = args.iter().find(|arg| !arg.starts_with("--"));
    if let Some(name) = wanted
        && !AREAS.iter().any(|(area, _)| area == name)
    {
        eprintln!("unknown area `{name}`: expected one of {:?}", AREAS.map(|(area, _)| area));
        std::process::exit(2);
    }
    for (area, rows) in AREAS {
        if wanted.map_or(area != LONG, |name| name == area) {
            for row in rows() {
                row.print(json);
            }
        }
    }
}
