//! The registry and its text.

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use runtime_telemetry::metrics::{DURATION_BUCKETS, OVERFLOW, SIZE_BUCKETS};
use runtime_telemetry::{Metrics, MetricsError, keys};

fn lines(metrics: &Metrics, name: &str) -> Vec<String> {
    metrics.render().lines().filter(|line| line.starts_with(name)).map(ToOwned::to_owned).collect()
}

#[test]
fn each_kind_renders_its_series() {
    let metrics = Metrics::new();
    let done = metrics.counter("jobs_done_total", "Jobs done.").unwrap();
    done.with(&[("kind", "a")]).add(2);
    done.with(&[("kind", "b")]).add_f64(0.5);
    done.with(&[("kind", "b")]).add_f64(-1.0);
    let active = metrics.gauge("requests_active", "Under way.").unwrap().unlabelled();
    let guards = (active.track(), active.track());
    drop(guards.0);
    let sizes = metrics.histogram("body_bytes", "Sizes.", &[1.0, 10.0]).unwrap().unlabelled();
    for value in [0.5, 1.0, 1.5, 10.0, 11.0, f64::NAN] {
        sizes.observe(value);
    }
    assert_eq!(
        lines(&metrics, "jobs_done_total"),
        [r#"jobs_done_total{kind="a"} 2"#, r#"jobs_done_total{kind="b"} 0.5"#]
    );
    assert_eq!(lines(&metrics, "requests_active"), ["requests_active 1"]);
    assert_eq!(
        lines(&metrics, "body_bytes"),
        [
            r#"body_bytes_bucket{le="1"} 2"#,
            r#"body_bytes_bucket{le="10"} 4"#,
            r#"body_bytes_bucket{le="+Inf"} 5"#,
            "body_bytes_sum 24",
            "body_bytes_count 5",
        ]
    );
    let text = metrics.render();
    assert!(text.contains("# HELP jobs_done_total Jobs done.\n# TYPE jobs_done_total counter\n"));
}

#[test]
fn the_same_shape_is_the_same_metric_and_another_is_refused() {
    let metrics = Metrics::new();
    metrics.counter("a_total", "A.").unwrap().unlabelled().inc();
    metrics.counter("a_total", "A.").unwrap().unlabelled().inc();
    assert_eq!(lines(&metrics, "a_total"), ["a_total 2"]);
    metrics.gauge("pool", "B.").unwrap();
    assert!(matches!(metrics.histogram("pool", "B.", &[1.0]), Err(MetricsError::Shape { was: "gauge", .. })));
    metrics.histogram("cost", "C.", &[1.0]).unwrap();
    assert!(metrics.histogram("cost", "C.", &[1.0]).is_ok());
    assert!(matches!(metrics.histogram("cost", "C.", &[2.0]), Err(MetricsError::Shape { .. })));
    for bad in [&[][..], &[1.0, 1.0], &[2.0, 1.0], &[f64::INFINITY], &[f64::NAN]] {
        assert!(
            matches!(metrics.histogram("depth", "D.", bad), Err(MetricsError::Buckets { .. })),
            "{bad:?}"
        );
    }
}

#[test]
fn label_sets_beyond_the_cap_share_one_series_and_are_counted() {
    let metrics = Metrics::with_max_series(2);
    let hits = metrics.counter("hits_total", "Hits.").unwrap();
    for path in ["/a", "/b", "/c", "/d", "/a"] {
        hits.with(&[("path", path)]).inc();
    }
    let overflow = format!(r#"hits_total{{path="{OVERFLOW}"}} 2"#);
    assert_eq!(
        lines(&metrics, "hits_total"),
        [r#"hits_total{path="/a"} 2"#, r#"hits_total{path="/b"} 1"#, overflow.as_str()]
    );
    assert_eq!(
        lines(&metrics, keys::METRICS_OVERFLOW),
        [r#"telemetry_metrics_overflow_total{metric="hits_total"} 2"#]
    );
}

#[test]
fn label_sets_that_do_not_fit_are_refused_counted_and_not_rendered() {
    let metrics = Metrics::new();
    let hits = metrics.counter("hits_total", "Hits.").unwrap();
    hits.with(&[("b", "1"), ("a", "2")]).inc();
    hits.with(&[("a", "2"), ("b", "1")]).inc();
    assert_eq!(lines(&metrics, "hits_total"), [r#"hits_total{a="2",b="1"} 2"#]);
    for bad in [&[("a", "1")][..], &[("a", "1"), ("a", "2")], &[("a", "1"), ("c", "2")], &[]] {
        assert!(matches!(hits.try_with(bad), Err(MetricsError::Labels { .. })), "{bad:?}");
        hits.with(bad).inc();
    }
    assert_eq!(
        lines(&metrics, keys::METRICS_REJECTED),
        [r#"telemetry_metrics_rejected_total{metric="hits_total"} 4"#]
    );
    assert_eq!(lines(&metrics, "hits_total").len(), 1);
    let times = metrics.histogram("times_seconds", "Times.", DURATION_BUCKETS).unwrap();
    assert!(times.try_with(&[("le", "1")]).is_err());
    assert!(times.try_with(&[("Upper", "1")]).is_err());
}

#[test]
fn a_long_label_value_is_cut_between_characters() {
    let metrics = Metrics::new();
    let hits = metrics.counter("hits_total", "Hits.").unwrap();
    hits.with(&[("path", &"é".repeat(1_000))]).inc();
    hits.with(&[("path", &"é".repeat(2_000))]).inc();
    assert_eq!(lines(&metrics, "hits_total"), [format!(r#"hits_total{{path="{}"}} 2"#, "é".repeat(128))]);
}

#[test]
fn nothing_counted_by_many_threads_is_lost() {
    let metrics = Metrics::new();
    let hits = metrics.counter("hits_total", "Hits.").unwrap();
    let times = metrics.histogram("times_seconds", "Times.", &[1.0]).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let (hits, times) = (&hits, &times);
            scope.spawn(move || {
                for round in 0..1_000 {
                    hits.with(&[("n", &(round % 10).to_string())]).inc();
                    times.unlabelled().observe(f64::from(thread % 2) * 2.0);
                }
            });
        }
    });
    let total: f64 = (0..10).map(|n: u8| hits.with(&[("n", &n.to_string())]).value()).sum();
    assert!((total - 8_000.0).abs() < f64::EPSILON);
    let times = times.unlabelled();
    assert_eq!((times.count(), times.buckets()[0].1), (8_000, 4_000));
    assert!((times.sum() - 8_000.0).abs() < f64::EPSILON);
}

#[test]
fn collectors_refresh_what_is_read_rather_than_counted() {
    let metrics = Metrics::new();
    let size = metrics.gauge("pool_size", "Size.").unwrap().unlabelled();
    let gauge = size.clone();
    metrics.collector(move || gauge.inc());
    metrics.render();
    assert_eq!(lines(&metrics, "pool_size"), ["pool_size 2"]);
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_describes_itself() {
    let text = Metrics::new().render();
    for name in [
        "process_cpu_seconds_total",
        "process_start_time_seconds",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_threads",
    ] {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect(name);
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value > 0.0 || name == "process_cpu_seconds_total", "{line}");
    }
}

fn populated() -> Metrics {
    let metrics = Metrics::with_max_series(3);
    metrics.build_info("demo", "1.2.3").unwrap();
    let help = "Back\\slash and\nline feed and \"quotes\".";
    let hits = metrics.counter("hits_total", help).unwrap();
    for path in ["/a", "/\"b\"", "/c\\d\ne", "/f"] {
        hits.with(&[("path", path)]).inc();
    }
    hits.with(&[("other", "x")]).inc();
    let name = keys::HTTP_SERVER_REQUEST_DURATION_SECONDS;
    metrics.histogram(name, "Times.", DURATION_BUCKETS).unwrap().with(&[("route", "/x")]).observe(0.2);
    let name = keys::HTTP_SERVER_REQUEST_BODY_SIZE_BYTES;
    metrics.histogram(name, "Sizes.", SIZE_BUCKETS).unwrap().unlabelled().observe(300.0);
    metrics.gauge("empty", "Never used.").unwrap();
    metrics
}

/// Debian's `prometheus` package has it; where it is missing the reader below judges alone.
#[test]
fn promtool_accepts_the_text() {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut tool) = spawned else {
        read(&populated().render());
        return;
    };
    tool.stdin.take().unwrap().write_all(populated().render().as_bytes()).unwrap();
    let out = tool.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && said.trim().is_empty(), "{said}");
}

/// Every name the house has fixed is one the registry takes for one kind.
#[test]
fn the_fixed_names_keep_the_rules() {
    let source = include_str!("../../src/metrics/keys.rs");
    let names: Vec<&str> = source
        .lines()
        .filter_map(|line| line.strip_suffix("\";")?.rsplit_once('"').map(|(_, name)| name))
        .collect();
    assert!(names.len() > 20);
    let metrics = Metrics::new();
    for name in names {
        let taken = if name.ends_with("_total") {
            metrics.counter(name, "H.").map(drop)
        } else {
            metrics.gauge(name, "H.").map(drop)
        };
        assert_eq!(taken, Ok(()), "{name}");
    }
}

/// Reads one label value back, as a scraper does.
fn read(text: &str) -> Vec<(String, String, f64)> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let value = value.replace("+Inf", "inf").parse().unwrap();
            (name.to_owned(), labels.trim_end_matches('}').to_owned(), value)
        })
        .collect()
}

proptest! {
    #[test]
    fn any_label_value_comes_back_as_it_was(value in "(.|[\\\\\n\"n]){0,60}") {
        let metrics = Metrics::new();
        metrics.gauge("x", "X.").unwrap().with(&[("l", &value)]).set(1.0);
        let text = metrics.render();
        // Only line feeds end a line of the format.
        let line = text.split('\n').find(|line| line.starts_with("x{")).unwrap();
        let quoted = line.strip_prefix("x{l=\"").unwrap().strip_suffix("\"} 1").unwrap();
        let mut back = String::new();
        let mut chars = quoted.chars();
        while let Some(c) = chars.next() {
            back.push(match c {
                '\\' => match chars.next().unwrap() {
                    'n' => '\n',
                    escaped => escaped,
                },
                plain => plain,
            });
        }
        prop_assert_eq!(back, value);
    }
}
