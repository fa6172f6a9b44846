//! `spawnpoint fleets watch`: a line for each change, for as long as somebody looks.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::time::Duration;

use serde_json::Value;
use spawnpoint_wire::api::{FleetChange, FleetView};
use tokio::sync::mpsc;

use crate::args::Format;
use crate::client::{Client, encode};
use crate::event_stream::next_event;
use crate::exit::Failure;
use crate::output::{json_line, line, note, printable};
use crate::signals::Signals;
use crate::verbs::read;

/// Changes read ahead of the terminal: beyond these the server is read no faster than the lines are taken.
const READ_AHEAD: usize = 64;
/// A stream that is cut is asked for again this often before the server is taken to be gone: half a minute is a restart.
const RESUMES: u32 = 30;
/// Pause before each time.
const RESUME_AFTER: Duration = Duration::from_secs(1);

/// Follows fleets until Ctrl-C, which is no failure: whoever looks has seen enough.
pub(super) fn run(client: Client, format: Format, name: Option<&str>) -> Result<(), Failure> {
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::because("cannot start", &e))?;
    let path = name.map_or_else(
        || "/api/fleets".to_owned(),
        |name| format!("/api/fleets/{}", encode(name)),
    );
    let outcome = executor.block_on(shown(client, format, path, name.is_some()));
    // The reader may wait for a change that never comes.
    executor.shutdown_background();
    outcome
}

async fn shown(client: Client, format: Format, path: String, one: bool) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let (tell, mut told) = mpsc::channel(READ_AHEAD);
    let reading = tokio::task::spawn_blocking(move || follow(&client, &path, one, &tell));
    let mut seen = Seen::default();
    loop {
        tokio::select! {
            _ = signals.next() => return Ok(()),
            change = told.recv() => match change {
                Some(change) => seen.show(format, &change)?,
                None => break,
            },
        }
    }
    reading
        .await
        .map_err(|e| Failure::because("the reader of the stream broke", &e))?
}

/// Reads the stream, over cut connections and restarts of the server, to the end of the one fleet or of whoever listens.
fn follow(
    client: &Client,
    path: &str,
    one: bool,
    tell: &mpsc::Sender<Value>,
) -> Result<(), Failure> {
    let mut cut = 0;
    let mut heard = false;
    loop {
        let stream = match client.stream(path, &[("follow", "true")], &[]) {
            Ok(stream) => stream,
            Err(Failure::Unreachable(why)) if heard && cut < RESUMES => {
                if cut <= 1 {
                    note(&printable(&format!(
                        "{why}. Trying again for half a minute"
                    )));
                }
                cut += 1;
                std::thread::sleep(RESUME_AFTER);
                continue;
            }
            Err(e) => return Err(e),
        };
        let mut reader = BufReader::new(stream);
        while let Some(change) = next_event(&mut reader) {
            (heard, cut) = (true, 0);
            let last = one && change["gone"] == true;
            if tell.blocking_send(change).is_err() || last {
                return Ok(());
            }
        }
        if cut >= RESUMES {
            return Err(Failure::Unreachable(
                "the stream of changes was cut off and could not be resumed".to_owned(),
            ));
        }
        cut += 1;
        std::thread::sleep(RESUME_AFTER);
    }
}

/// The fleets as they were last shown.
#[derive(Default)]
struct Seen(BTreeMap<String, FleetView>);

impl Seen {
    fn show(&mut self, format: Format, change: &Value) -> Result<(), Failure> {
        let known: FleetChange = read(change)?;
        let before = if known.gone {
            self.0.remove(&known.fleet.name)
        } else {
            self.0.insert(known.fleet.name.clone(), known.fleet.clone())
        };
        // A stream that begins anew says again how all are.
        if !known.gone && before.as_ref().is_some_and(|b| !b.differs(&known.fleet)) {
            return Ok(());
        }
        match format {
            Format::Json => json_line(change),
            Format::Table => line(&printable(&words(&known, before.as_ref()))),
        }
    }
}

/// A change on one line: when, which fleet, its numbers with what they were before, and why.
fn words(change: &FleetChange, before: Option<&FleetView>) -> String {
    let (at, now) = (&change.at, &change.fleet);
    let name = &now.name;
    if change.gone {
        return format!("{at}  {name:<12}  is gone from the configuration");
    }
    let number = |of: fn(&FleetView) -> u32| {
        let shown = of(now);
        match before.map(of).filter(|b| *b != shown) {
            Some(b) => format!("{b}->{shown}"),
            None => shown.to_string(),
        }
    };
    let mut numbers = format!(
        "warm {} of {}, starting {}, claimed {}, queued {}, stopping {}",
        number(|f| f.warm),
        number(|f| f.warm_target),
        number(|f| f.starting),
        number(|f| f.claimed),
        number(|f| f.queued),
        number(|f| f.stopping),
    );
    if now.degraded {
        numbers.push_str(", degraded");
    }
    let because = now.last_plan.as_ref().map_or("", |p| p.because.as_str());
    format!("{at}  {name:<12}  {numbers}  ({because})")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(warm: u32, claimed: u32, because: &str) -> FleetChange {
        serde_json::from_value(json!({
            "at": "2026-01-01T00:00:00.250Z", "gone": false, "name": "arena", "protocol": "tcp", "expose": "gateway",
            "warm_target": 2, "warm": warm, "starting": 0, "queued": 0, "claimed": claimed, "stopping": 0, "sessions": claimed,
            "max_instances": null, "claims_warm": 0, "claims_cold": 0, "hit_rate": null, "degraded": false, "failures_in_a_row": 0,
            "last_plan": {"at": "2026-01-01T00:00:00.249Z", "admit": 0, "start": 0, "stop": 0, "because": because},
        }))
        .unwrap()
    }

    #[test]
    fn a_line_has_its_time_what_changed_and_why() {
        let before = change(2, 0, "2 of 2 warm, 0 claimed: as wanted");
        assert_eq!(
            words(&before, None),
            "2026-01-01T00:00:00.250Z  arena         warm 2 of 2, starting 0, claimed 0, queued 0, stopping 0  (2 of 2 warm, 0 claimed: as wanted)"
        );
        let mut after = change(1, 1, "1 of 2 warm: 1 more");
        after.fleet.degraded = true;
        assert_eq!(
            words(&after, Some(&before.fleet)),
            "2026-01-01T00:00:00.250Z  arena         warm 2->1 of 2, starting 0, claimed 0->1, queued 0, stopping 0, degraded  (1 of 2 warm: 1 more)"
        );
        after.gone = true;
        assert_eq!(
            words(&after, Some(&before.fleet)),
            "2026-01-01T00:00:00.250Z  arena         is gone from the configuration"
        );
    }
}
