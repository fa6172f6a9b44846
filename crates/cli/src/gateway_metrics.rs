//! What the gateway counts, as the Prometheus text that the server's `/metrics` adds to its own.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use spawnpoint_gateway::Metrics;

/// The text, one family after another.
pub(crate) fn render(m: &Metrics) -> String {
    let mut out = String::new();
    let gauges: [(&str, &str, u64); 11] = [
        (
            "connections",
            "Open connections of all kinds.",
            m.connections,
        ),
        ("tunnels", "Connections that carry a game.", m.tunnels),
        (
            "requests",
            "Requests that an HTTP game is answering.",
            m.requests,
        ),
        (
            "idle_game_connections",
            "Free connections to HTTP games.",
            m.idle_game_connections,
        ),
        (
            "parked",
            "Connections parked before their handshake is answered.",
            m.parked,
        ),
        (
            "progress",
            "Connections that are told progress.",
            m.progress,
        ),
        (
            "tcp_sessions",
            "TCP sessions that are listened for.",
            m.tcp_sessions,
        ),
        ("routes", "Routes in the table.", m.routes),
        (
            "link_up",
            "Whether the stream of routes is open.",
            u64::from(m.link_up),
        ),
        (
            "buffered_bytes",
            "Bytes that a receiver did not take yet.",
            m.buffered_bytes,
        ),
        (
            "buffered_bytes_peak",
            "The most that was ever buffered.",
            m.buffered_bytes_peak,
        ),
    ];
    for (name, help, value) in gauges {
        family(&mut out, name, "gauge", help);
        sample(&mut out, name, "", value);
    }
    let counters: [(&str, &str, u64); 8] = [
        ("bytes_in_total", "Bytes from players to games.", m.bytes_in),
        (
            "bytes_out_total",
            "Bytes from games to players.",
            m.bytes_out,
        ),
        (
            "connections_refused_total",
            "Connections refused because there were too many.",
            m.connections_refused,
        ),
        (
            "dial_retries_total",
            "Attempts to reach a game that were made again.",
            m.dial_retries,
        ),
        (
            "resolves_total",
            "Questions to the server about sessions not in the table.",
            m.resolves,
        ),
        (
            "resolves_over_budget_total",
            "Such questions that were not allowed.",
            m.resolves_over_budget,
        ),
        (
            "reports_total",
            "Reports of presence that arrived.",
            m.reports,
        ),
        (
            "reports_failed_total",
            "Reports of presence that did not.",
            m.reports_failed,
        ),
    ];
    for (name, help, value) in counters {
        family(&mut out, name, "counter", help);
        sample(&mut out, name, "", value);
    }
    labelled(
        &mut out,
        "handshakes_total",
        "Handshakes by outcome.",
        "outcome",
        &m.handshakes,
    );
    labelled(
        &mut out,
        "http_requests_total",
        "Requests to HTTP games by outcome.",
        "outcome",
        &m.http_requests,
    );
    labelled(
        &mut out,
        "closes_total",
        "Tunnels closed, by close code.",
        "code",
        &m.closes,
    );
    out
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "# HELP spawnpoint_gateway_{name} {help}\n# TYPE spawnpoint_gateway_{name} {kind}"
    );
}

fn sample(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(out, "spawnpoint_gateway_{name}{labels} {value}");
}

fn labelled<K: Display>(
    out: &mut String,
    name: &str,
    help: &str,
    label: &str,
    values: &BTreeMap<K, u64>,
) {
    family(out, name, "counter", help);
    for (key, value) in values {
        sample(out, name, &format!("{{{label}=\"{key}\"}}"), *value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_has_a_family_and_none_appears_twice() {
        let m = Metrics {
            tunnels: 3,
            handshakes: BTreeMap::from([("ok", 2)]),
            closes: BTreeMap::from([(1000, 1), (4408, 5)]),
            ..Metrics::default()
        };
        let text = render(&m);
        assert!(text.contains("\nspawnpoint_gateway_tunnels 3\n"), "{text}");
        assert!(
            text.contains("\nspawnpoint_gateway_closes_total{code=\"4408\"} 5\n"),
            "{text}"
        );
        let mut families: Vec<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(families.contains(&name), "{line}");
        }
        let all = families.len();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), all);
    }
}
