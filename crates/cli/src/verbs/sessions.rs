//! `spawnpoint sessions`.

use std::io::{BufReader, Read};

use serde_json::{Value, json};
use spawnpoint_wire::api::{EndReply, ExtendReply, ReceiptView, SessionPage, SessionView, Why};
use ureq::http::Method;

use super::{or_dash, read};
use crate::args::{Format, Global, SessionsVerb};
use crate::client::{Client, encode};
use crate::event_stream::next_event;
use crate::exit::Failure;
use crate::output::{bold, distance, facts, json_line, line, now, printable, raw, show, table};

/// Sessions asked for at once; the listing goes on until there are no more.
const PAGE: &str = "500";
/// A stream that is cut without having said anything is asked for again this often, then the server is gone.
const RESUMES: u32 = 3;

/// Looks at live sessions and acts on them.
pub(crate) fn run(verb: &SessionsVerb, global: &Global) -> Result<(), Failure> {
    let client = Client::new(global)?;
    match verb {
        SessionsVerb::Ls {
            fleet,
            phase,
            player,
        } => list(
            &client,
            global,
            &[("fleet", fleet), ("phase", phase), ("player_id", player)],
        ),
        SessionsVerb::Get { id } => {
            let answer = client.get(&path(id, ""), &[])?;
            let session: SessionView = read(&answer)?;
            show(global.output, &answer, || details(&session))
        }
        SessionsVerb::End { id } => {
            let answer = client.send(Method::DELETE, &path(id, ""), &[], &json!({}))?;
            let reply: EndReply = read(&answer)?;
            show(global.output, &answer, || {
                format!("{} ends: {}", reply.session_id, or_dash(reply.reason))
            })
        }
        SessionsVerb::Logs { id, follow, tail } => logs(&client, id, *follow, *tail),
        SessionsVerb::Why { id } => {
            let answer = client.get(&path(id, "/why"), &[])?;
            let why: Why = read(&answer)?;
            show(global.output, &answer, || explain(&why))
        }
        SessionsVerb::Watch { id } => watch(&client, global.output, id),
        SessionsVerb::Extend {
            id,
            by,
            raise_limit,
        } => {
            let by = by
                .parse::<f64>()
                .map_or_else(|_| json!(by), |seconds| json!(seconds));
            let answer = client.send(
                Method::POST,
                &path(id, "/extend"),
                &[],
                &json!({ "by": by, "raise_limit": raise_limit }),
            )?;
            let reply: ExtendReply = read(&answer)?;
            show(global.output, &answer, || extended(&reply))
        }
    }
}

fn path(id: &str, rest: &str) -> String {
    format!("/api/sessions/{}{rest}", encode(id))
}

fn list(
    client: &Client,
    global: &Global,
    filters: &[(&str, &Option<String>)],
) -> Result<(), Failure> {
    let mut all: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", PAGE)];
        query.extend(
            filters
                .iter()
                .filter_map(|(name, value)| Some((*name, value.as_deref()?))),
        );
        query.extend(cursor.as_deref().map(|c| ("cursor", c)));
        let mut answer = client.get("/api/sessions", &query)?;
        let page: SessionPage = read(&answer)?;
        if let Some(sessions) = answer.get_mut("sessions").and_then(Value::as_array_mut) {
            all.append(sessions);
        }
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let sessions = all
        .iter()
        .map(read::<SessionView>)
        .collect::<Result<Vec<_>, _>>()?;
    show(
        global.output,
        &json!({ "sessions": all, "total": sessions.len() }),
        || {
            let now = now();
            let headings = [
                "SESSION", "FLEET", "PHASE", "PLAYERS", "AGE", "CULL", "FOR", "INSTANCE",
            ];
            table(&headings, sessions.iter().map(|s| row(s, now)).collect())
        },
    )
}

fn row(s: &SessionView, now: jiff::Timestamp) -> Vec<String> {
    let connected: Option<u32> = s
        .players
        .iter()
        .map(|p| p.connections.map(|c| c.min(1)))
        .sum();
    vec![
        s.session_id.clone(),
        s.fleet.clone(),
        s.phase.clone(),
        format!(
            "{}/{}",
            connected.map_or_else(|| "?".to_owned(), |c| c.to_string()),
            s.players.len()
        ),
        distance(Some(&s.created_at), now)
            .trim_end_matches(" ago")
            .to_owned(),
        distance(s.cull_at.as_deref(), now),
        or_dash(s.cull_reason.clone()),
        or_dash(s.instance.as_ref().map(|i| i.label.clone())),
    ]
}

fn details(s: &SessionView) -> String {
    let now = now();
    let players: Vec<String> = s
        .players
        .iter()
        .map(|p| {
            let seen = match p.connections {
                None => "not seen yet".to_owned(),
                Some(0) => "away".to_owned(),
                Some(1) => "connected".to_owned(),
                Some(n) => format!("{n} connections"),
            };
            format!("{} ({seen})", p.player_id)
        })
        .collect();
    let dial = s
        .connect_host
        .as_ref()
        .zip(s.connect_port)
        .map(|(h, p)| format!("{h}:{p}"))
        .unwrap_or_default();
    facts(&[
        ("session", s.session_id.clone()),
        ("fleet", s.fleet.clone()),
        ("phase", s.phase.clone()),
        ("players", players.join(", ")),
        ("owner", s.owner.clone().unwrap_or_default()),
        ("joinable", s.joinable.clone()),
        ("url", s.ws_url.clone().unwrap_or_default()),
        ("address", dial),
        (
            "instance",
            s.instance
                .as_ref()
                .map(|i| format!("{} at {}", i.label, or_dash(i.address.as_ref())))
                .unwrap_or_default(),
        ),
        ("generation", s.generation.to_string()),
        (
            "queue",
            s.queue
                .as_ref()
                .map(|q| format!("number {}, waits for {}", q.position, q.waiting_for))
                .unwrap_or_default(),
        ),
        (
            "created",
            format!("{} ({})", s.created_at, distance(Some(&s.created_at), now)),
        ),
        ("active", distance(s.last_active_at.as_deref(), now)),
        (
            "cull",
            s.cull_at
                .as_deref()
                .map(|at| {
                    format!(
                        "{} for {}",
                        distance(Some(at), now),
                        or_dash(s.cull_reason.as_ref())
                    )
                })
                .unwrap_or_default(),
        ),
        ("start", s.receipt.as_ref().map(receipt).unwrap_or_default()),
        (
            "end",
            s.end
                .as_ref()
                .map(|e| format!("{}, by {}", e.reason, e.by))
                .unwrap_or_default(),
        ),
    ])
}

/// The phases of a start that took any time, and their sum.
pub(crate) fn receipt(r: &ReceiptView) -> String {
    let phases = [
        ("queue", r.queue_ms),
        ("schedule", r.schedule_ms),
        ("pull", r.pull_ms),
        ("boot", r.boot_ms),
        ("claim", r.claim_ms),
        ("dial", r.dial_ms),
    ];
    let parts: Vec<String> = phases
        .iter()
        .filter(|(_, ms)| *ms > 0)
        .map(|(name, ms)| format!("{name} {ms}"))
        .collect();
    if parts.is_empty() {
        format!("{} ms", r.total_ms)
    } else {
        format!("{} ms ({})", r.total_ms, parts.join(" + "))
    }
}

fn explain(w: &Why) -> String {
    let now = now();
    let mut out = vec![bold(&printable(&w.summary))];
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            out.push(format!("\n{title}"));
            out.extend(lines.iter().map(|l| format!("  {}", printable(l))));
        }
    };
    section(
        "Deadlines",
        w.deadlines
            .iter()
            .map(|d| format!("{}  {}", distance(Some(&d.at), now), d.reason))
            .collect(),
    );
    section("Held by", w.held_by.iter().cloned().collect());
    let claims = w.client_claims.iter();
    section(
        "What clients say (never trusted)",
        claims
            .map(|c| {
                format!(
                    "{}: {} {}",
                    c.player_id,
                    c.status,
                    distance(Some(&c.at), now)
                )
            })
            .collect(),
    );
    section("Start", w.receipt.iter().map(receipt).collect());
    let decisions = w.decisions.iter();
    section(
        "Decisions",
        decisions
            .map(|d| {
                format!(
                    "{}  {}({}) -> {}: {}",
                    d.at, d.function, d.input, d.output, d.because
                )
            })
            .collect(),
    );
    out.join("\n")
}

fn extended(r: &ExtendReply) -> String {
    let until = r.max_at.as_deref().map_or_else(
        || "without a deadline".to_owned(),
        |at| format!("until {at} ({})", distance(Some(at), now())),
    );
    if r.extended {
        format!("{} may go on {until}", r.session_id)
    } else {
        format!(
            "{} was not extended: it may go on {until}, its limit",
            r.session_id
        )
    }
}

fn logs(client: &Client, id: &str, follow: bool, tail: Option<u64>) -> Result<(), Failure> {
    let tail = tail.map(|t| t.to_string());
    let mut query = Vec::new();
    if follow {
        query.push(("follow", "true"));
    }
    query.extend(tail.as_deref().map(|t| ("tail", t)));
    let mut stream = client.stream(&path(id, "/logs"), &query, &[])?;
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let n = stream
            .read(&mut chunk)
            .map_err(|e| Failure::Unreachable(format!("the log was cut off: {e}")))?;
        let Some(bytes) = chunk.get(..n).filter(|b| !b.is_empty()) else {
            return Ok(());
        };
        raw(bytes)?;
    }
}

/// Follows a session's events to its end, over cut connections and restarts of the server.
fn watch(client: &Client, format: Format, id: &str) -> Result<(), Failure> {
    let mut last: Option<String> = None;
    let mut resumes = 0;
    loop {
        let headers: Vec<(&str, &str)> = last
            .iter()
            .map(|id| ("last-event-id", id.as_str()))
            .collect();
        let stream = match client.stream("/api/events", &[("session_id", id)], &headers) {
            Ok(stream) => stream,
            Err(Failure::Unreachable(_)) if last.is_some() && resumes < RESUMES => {
                resumes += 1;
                std::thread::sleep(std::time::Duration::from_secs(1));
                continue;
            }
            Err(e) => return Err(e),
        };
        let mut reader = BufReader::new(stream);
        while let Some(event) = next_event(&mut reader) {
            resumes = 0;
            if let Some(id) = event
                .get("id")
                .and_then(Value::as_str)
                .filter(|id| !id.is_empty())
            {
                last = Some(id.to_owned());
            }
            match format {
                Format::Json => json_line(&event)?,
                Format::Table => line(&event_line(&event))?,
            }
            let kind = event.get("type").and_then(Value::as_str);
            if kind == Some("ended")
                || (kind == Some("hello")
                    && event.get("phase").and_then(Value::as_str) == Some("ended"))
            {
                return Ok(());
            }
        }
        if resumes >= RESUMES {
            return Err(Failure::Unreachable(
                "the event stream was cut off and could not be resumed".to_owned(),
            ));
        }
        resumes += 1;
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// An event on one line: time, type, and what it carries.
fn event_line(event: &Value) -> String {
    let text = |name: &str| {
        event
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let rest: Vec<String> = event
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(k, v)| {
            !matches!(k.as_str(), "v" | "id" | "type" | "at" | "session_id") && !v.is_null()
        })
        .map(|(k, v)| {
            format!(
                "{k}={}",
                v.as_str().map_or_else(|| v.to_string(), str::to_owned)
            )
        })
        .collect();
    printable(format!("{}  {:<14}{}", text("at"), text("type"), rest.join(" ")).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_readable_line() {
        let event = json!({"v": 1, "id": "1-2", "at": "2026-01-01T00:00:00Z", "type": "player_joined", "player_id": "a\u{1b}b", "session_id": "x"});
        assert_eq!(
            event_line(&event),
            "2026-01-01T00:00:00Z  player_joined player_id=a\u{fffd}b"
        );
    }

    #[test]
    fn a_receipt_names_what_took_time() {
        let r = ReceiptView {
            queue_ms: 0,
            schedule_ms: 2,
            pull_ms: 0,
            boot_ms: 30,
            claim_ms: 0,
            dial_ms: 1,
            total_ms: 33,
        };
        assert_eq!(receipt(&r), "33 ms (schedule 2 + boot 30 + dial 1)");
    }
}
