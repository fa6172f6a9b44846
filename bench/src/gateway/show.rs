//! The measurement as a table, promises and a picture.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::memory::Bytes;
use super::rivals::{Installed, Rival};
use super::{CALLERS, CROWD, Seen, Size};
use crate::plot::{Words, distributions};
use crate::report::{Picture, Section, Verdict, thousands};
use crate::stats::Samples;

/// What is promised, as multiples of haproxy's.
const AS_HAPROXY: f64 = 1.0;
const HANDSHAKES_OF_HAPROXY: f64 = 0.6;
/// KiB for each idle tunnel and for each parked connection.
const TUNNEL_KIB: f64 = 3.0;
const PARKED_KIB: f64 = 4.0;
/// Points of a curve: more would show nothing more.
const POINTS: usize = 400;

const PICTURE: Words<'_> = Words {
    caption: "round trip of one 64-byte message, one player",
    x: "microseconds (logarithmic)",
    y: "% of round trips done",
};

pub(super) struct Results {
    pub(super) size: Size,
    pub(super) targets: Vec<(&'static str, Seen)>,
    pub(super) memory: Bytes,
    pub(super) checked: String,
    pub(super) installed: Vec<Installed>,
    pub(super) missing: Vec<String>,
}

/// The figures of one row.
struct Row {
    name: &'static str,
    alone: Samples,
    crowd: Samples,
    /// Microseconds of CPU time.
    message_alone: f64,
    message_crowd: f64,
    handshake: f64,
    handshakes_per_second: f64,
    tunnel: f64,
}

impl Row {
    fn new(name: &'static str, seen: &Seen, memory: &Bytes) -> Self {
        let micros = |all: &[Duration]| Samples::new(all.iter().map(|d| d.as_secs_f64() * 1e6));
        let each = |cpu: Duration, n: usize| cpu.as_secs_f64() * 1e6 / n as f64;
        let tunnel = memory.tunnel.iter().find(|(n, _)| *n == name);
        Self {
            name,
            alone: micros(&seen.alone),
            crowd: micros(&seen.crowd),
            message_alone: each(seen.alone_cpu, seen.alone.len()),
            message_crowd: each(seen.crowd_cpu, seen.crowd.len()),
            handshake: each(seen.handshakes_cpu, seen.handshakes),
            handshakes_per_second: seen.handshakes as f64 / seen.handshakes_took.as_secs_f64(),
            tunnel: tunnel.map_or(f64::NAN, |(_, bytes)| bytes / 1024.0),
        }
    }

    fn cells(&self, direct: &Self) -> Vec<String> {
        let is_direct = self.name == direct.name;
        let added = |q: f64| {
            let (with, without) = (self.alone.quantile(q), direct.alone.quantile(q));
            if is_direct {
                format!("{with:.1}")
            } else {
                format!("{with:.1} ({:+.1})", with - without)
            }
        };
        let of_relay = |text: String| {
            if is_direct { String::new() } else { text }
        };
        let name = if is_direct { "no relay" } else { self.name };
        vec![
            name.to_owned(),
            added(0.5),
            added(0.99),
            of_relay(format!("{:.1}", self.message_alone)),
            of_relay(format!("{:.1}", self.message_crowd)),
            of_relay(format!("{:.1}", self.tunnel)),
            thousands(self.handshakes_per_second),
            of_relay(format!("{:.0}", self.handshake)),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "relay": self.name,
            "alone_us": {"p50": self.alone.median(), "p99": self.alone.quantile(0.99)},
            "crowd_us": {"p50": self.crowd.median(), "p99": self.crowd.quantile(0.99)},
            "cpu_us_per_message": {"alone": self.message_alone, "crowd": self.message_crowd},
            "cpu_us_per_handshake": self.handshake, "handshakes_per_second": self.handshakes_per_second,
            "kib_per_idle_tunnel": self.tunnel,
        })
    }
}

pub(super) fn section(results: &Results) -> Result<Section> {
    let Results { size, memory, .. } = results;
    let rows: Vec<Row> = results
        .targets
        .iter()
        .map(|(name, seen)| Row::new(name, seen, memory))
        .collect();
    let crowd_column = format!("CPU us per message, {CROWD} players");
    let mut s = Section::new(
        "gateway",
        "Gateway beside haproxy and nginx",
        &[
            "relay",
            "round trip p50 us (added)",
            "p99 us (added)",
            "CPU us per message, one player",
            &crowd_column,
            "KiB per idle tunnel",
            "handshakes per second",
            "CPU us per handshake",
        ],
    );
    let with: Vec<String> = results
        .installed
        .iter()
        .map(|i| format!("{} {}", i.rival.name(), i.version))
        .collect();
    s.method = format!(
        "{} WebSockets with messages of 64 bytes to one echo server, without a relay and through each: the gateway (token check, activity, \
         metrics, reports and close handles on; one session for each player) and {} (a worker for each core, no log). {} rounds; in each, in \
         an order drawn anew, {} messages of one player there and back, then {} of each of {CROWD} players who talk at once, each as fast as \
         it is answered; then {} rounds of {} handshakes by {CALLERS} callers, who connect, ask, wait for the 101 and hang up. CPU time is \
         that of all the relay's threads, for a message there and its echo back; of a handshake with hanging up. Memory is PSS, added by {} \
         players in a fresh relay who have each said and heard one message and are silent.",
        "Over loopback:",
        if with.is_empty() {
            "nothing else (see below)".to_owned()
        } else {
            with.join(", ")
        },
        size.rounds,
        size.messages,
        size.talk,
        size.rounds,
        size.handshakes,
        thousands(memory.players as f64),
    );
    let row = |name: &str| rows.iter().find(|r| r.name == name);
    if let Some(direct) = row("direct") {
        s.rows = rows.iter().map(|r| r.cells(direct)).collect();
        if let (Some(ours), Some(haproxy)) = (row("gateway"), row(Rival::Haproxy.name())) {
            beside_haproxy(&mut s, direct, ours, haproxy);
        }
    }
    memory_promises(&mut s, memory);
    s.notes.push(format!(
        "Waiting for a game that still starts costs the gateway {:.1} KiB with the handshake held back and {:.1} KiB with progress \
         frames; a session that it could route, without players, {:.1} KiB.",
        memory.parked / 1024.0,
        memory.progress / 1024.0,
        memory.route / 1024.0
    ));
    let full = Size::of(false).tunnels;
    if memory.players < full && size.rounds == Size::of(false).rounds {
        s.notes.push(format!(
            "Only {} players for want of file descriptors (`ulimit -Hn`); {} need {}.",
            memory.players,
            full,
            2 * full
        ));
    }
    s.notes.push(results.checked.clone());
    s.notes.extend(results.missing.iter().cloned());
    let curves: Vec<_> = rows
        .iter()
        .map(|r| (r.name.to_owned(), thinned(r.alone.sorted())))
        .collect();
    s.pictures.push(Picture {
        name: "bench-gateway",
        alt: "share of round trips done, by microseconds, without a relay and through each",
        svg: distributions(PICTURE, &curves)?,
    });
    s.data = json!({
        "relays": rows.iter().map(Row::json).collect::<Vec<_>>(), "tunnels": memory.players,
        "kib_per_route": memory.route / 1024.0, "kib_parked": memory.parked / 1024.0, "kib_progress": memory.progress / 1024.0,
        "versions": with, "missing": results.missing,
    });
    Ok(s)
}

fn beside_haproxy(s: &mut Section, direct: &Row, ours: &Row, haproxy: &Row) {
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        let added = |r: &Row| r.alone.quantile(q) - direct.alone.quantile(q);
        s.verdicts.push(Verdict::at_most(
            &format!("added round trip {name}, as a multiple of haproxy's"),
            added(ours) / added(haproxy),
            AS_HAPROXY,
        ));
    }
    s.verdicts.push(Verdict::at_most(
        "CPU per message of one player, as a multiple of haproxy's",
        ours.message_alone / haproxy.message_alone,
        AS_HAPROXY,
    ));
    s.verdicts.push(Verdict::at_most(
        &format!("CPU per message of {CROWD} players, as a multiple of haproxy's"),
        ours.message_crowd / haproxy.message_crowd,
        AS_HAPROXY,
    ));
    s.verdicts.push(Verdict::at_least(
        "handshakes per second with the token check, as a multiple of haproxy's without",
        ours.handshakes_per_second / haproxy.handshakes_per_second,
        HANDSHAKES_OF_HAPROXY,
    ));
}

fn memory_promises(s: &mut Section, memory: &Bytes) {
    let tunnel = memory.tunnel.iter().find(|(name, _)| *name == "gateway");
    s.verdicts.push(Verdict::at_most(
        "user memory per idle tunnel, KiB",
        tunnel.map_or(f64::NAN, |(_, bytes)| bytes / 1024.0),
        TUNNEL_KIB,
    ));
    s.verdicts.push(Verdict::at_most(
        "user memory per parked connection, KiB",
        memory.parked / 1024.0,
        PARKED_KIB,
    ));
}

/// Evenly spaced samples of many sorted ones; the last is among them.
fn thinned(sorted: &[f64]) -> Vec<f64> {
    let step = sorted.len().div_ceil(POINTS).max(1);
    let mut few: Vec<f64> = sorted.iter().rev().step_by(step).copied().collect();
    few.reverse();
    few
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(micros: u64, cpu: u64) -> Seen {
        Seen {
            alone: vec![Duration::from_micros(micros); 100],
            alone_cpu: Duration::from_micros(cpu * 100),
            crowd: vec![Duration::from_micros(micros * 10); 100],
            crowd_cpu: Duration::from_micros(cpu * 50),
            handshakes: 10,
            handshakes_took: Duration::from_millis(10),
            handshakes_cpu: Duration::from_micros(800),
        }
    }

    fn results(haproxy: bool) -> Results {
        let mut targets = vec![("direct", seen(20, 0)), ("gateway", seen(50, 20))];
        let mut tunnel = vec![("gateway", 2048.0)];
        if haproxy {
            targets.push(("haproxy", seen(45, 25)));
            tunnel.push(("haproxy", 1024.0));
        }
        Results {
            size: Size::of(true),
            targets,
            memory: Bytes {
                players: 8_000,
                tunnel,
                route: 512.0,
                parked: 8192.0,
                progress: 4096.0,
            },
            checked: "checked".into(),
            installed: Vec::new(),
            missing: if haproxy {
                vec![]
            } else {
                vec!["haproxy is not installed".into()]
            },
        }
    }

    #[test]
    fn promises_are_ratios_to_haproxy() {
        let s = section(&results(true)).unwrap();
        let met: Vec<bool> = s.verdicts.iter().map(Verdict::met).collect();
        // 30 us over 25 added; 20 of 25 us of CPU; as many handshakes; memory by itself.
        assert_eq!(met, [false, false, true, true, true, true, false]);
        assert!((s.verdicts[0].measured - 1.2).abs() < 1e-9);
        assert_eq!(
            s.rows[1][..2],
            ["gateway".to_owned(), "50.0 (+30.0)".to_owned()]
        );
        assert_eq!(s.rows[0][3], "");
    }

    #[test]
    fn without_haproxy_only_what_needs_no_comparison_is_promised() {
        let s = section(&results(false)).unwrap();
        assert_eq!(s.verdicts.len(), 2);
        assert!(s.notes.iter().any(|n| n == "haproxy is not installed"));
    }

    #[test]
    fn a_thinned_curve_keeps_its_end() {
        let many: Vec<f64> = (0..10_001).map(f64::from).collect();
        let few = thinned(&many);
        assert!(few.len() <= POINTS && few.last() == Some(&10_000.0));
        assert!(few.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(thinned(&[1.0, 2.0]), [1.0, 2.0]);
    }
}
