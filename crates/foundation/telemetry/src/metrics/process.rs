//! What the operating system knows of this process, under the names every Prometheus client uses.

/// Appends the process metrics; what cannot be read is left out.
#[cfg(target_os = "linux")]
pub(super) fn render(out: &mut String) {
    use super::text::{head, sample};
    let stat = std::fs::read_to_string("/proc/self/stat").ok().and_then(|text| parse_stat(&text));
    let boot = std::fs::read_to_string("/proc/stat").ok().and_then(|text| line_value(&text, "btime "));
    let mut put = |name: &str, help: &str, kind: &str, value: Option<f64>| {
        if let Some(value) = value {
            head(out, name, help, kind);
            sample(out, name, "", &[], None, value);
        }
    };
    put(
        "process_cpu_seconds_total",
        "User and system time spent.",
        "counter",
        stat.map(|stat| stat.cpu_ticks / TICKS_PER_SECOND),
    );
    put(
        "process_start_time_seconds",
        "When the process started, since the Unix epoch.",
        "gauge",
        stat.zip(boot).map(|(stat, boot)| boot + stat.start_ticks / TICKS_PER_SECOND),
    );
    put(
        "process_resident_memory_bytes",
        "Memory that is in RAM.",
        "gauge",
        std::fs::read_to_string("/proc/self/status")
            .ok()
            .and_then(|text| line_value(&text, "VmRSS:"))
            .map(|kib| kib * 1024.0),
    );
    put("process_threads", "Threads.", "gauge", stat.map(|stat| stat.threads));
    // The directory being read is itself open.
    #[expect(clippy::cast_precision_loss, reason = "the text format carries doubles")]
    let open =
        std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as f64);
    put("process_open_fds", "Open file descriptors.", "gauge", open);
    put(
        "process_max_fds",
        "The most file descriptors that may be open.",
        "gauge",
        std::fs::read_to_string("/proc/self/limits")
            .ok()
            .and_then(|text| line_value(&text, "Max open files")),
    );
}

#[cfg(not(target_os = "linux"))]
pub(super) fn render(_: &mut String) {}

/// `USER_HZ`, 100 on every architecture Rust's Linux targets run on (`proc_pid_stat(5)`).
#[cfg(target_os = "linux")]
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    threads: f64,
    start_ticks: f64,
}

/// Fields 14, 15, 20 and 22 of `proc_pid_stat(5)`, counted after the command, which may itself contain `) `.
#[cfg(target_os = "linux")]
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some(Stat { cpu_ticks: number(14)? + number(15)?, threads: number(20)?, start_ticks: number(22)? })
}

/// The first number on the line that starts with `key`.
#[cfg(target_os = "linux")]
fn line_value(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_does_not_shift_the_fields() {
        let text = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 150 13 14 15 16 4 0 9000 20 21";
        assert_eq!(parse_stat(text), Some(Stat { cpu_ticks: 400.0, threads: 4.0, start_ticks: 9000.0 }));
    }

    #[test]
    fn a_line_is_found_by_its_key() {
        assert_eq!(line_value("Name:\tx\nVmRSS:\t  1234 kB\n", "VmRSS:"), Some(1234.0));
        assert_eq!(
            line_value("Max open files            1024   4096   files\n", "Max open files"),
            Some(1024.0)
        );
        assert_eq!(line_value("", "VmRSS:"), None);
    }
}
