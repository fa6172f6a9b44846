//! Each `[[queue]]`, and the queue of its own name that every fleet has without one.

use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::FleetName;
use spawnpoint_core::matching::{RuleError, Rules};

use super::assemble::top_error;
use super::error::{ErrorKind, Origin};
use super::keys::{Meta, queue};
use super::read::{Reader, Section};
use super::units::show_duration;
use super::value::{Node, Value};
use super::{FleetConfig, QueueConfig};

/// Most queues of one file: each is looked at by every tick of the matchmaker.
const MAX_QUEUES: usize = 256;
/// An unattended ticket outlives its queue's flush wait by this, unless the file says otherwise.
const UNATTENDED_BEYOND_FLUSH: Duration = Duration::from_secs(60);

/// Reads the queues: those of the file in its order, then those that fleets have by themselves.
pub(super) fn read_queues(
    r: &mut Reader<'_>,
    nodes: Vec<Node>,
    fleets: &[Arc<FleetConfig>],
) -> Vec<Arc<QueueConfig>> {
    if nodes.len() > MAX_QUEUES {
        r.errors.push(top_error(
            ErrorKind::Invalid,
            "queue",
            nodes.first().map_or(0, |n| n.line),
            format!("{} queues; at most {MAX_QUEUES}", nodes.len()),
        ));
        return Vec::new();
    }
    // A fleet that could not be read is no reason to complain of its queue as well.
    let sound = r.errors.is_empty();
    let mut all: Vec<Arc<QueueConfig>> = Vec::new();
    let mut names: Vec<FleetName> = Vec::new();
    for (at, node) in nodes.into_iter().enumerate() {
        let Value::Table(pairs) = node.value else {
            r.errors.push(top_error(
                ErrorKind::Invalid,
                &format!("queue[{at}]"),
                node.line,
                "must be a table: [[queue]]".into(),
            ));
            continue;
        };
        let text = |key: &str| -> Option<FleetName> {
            pairs.iter().find_map(|(k, n)| match &n.value {
                Value::Text(s) if k == key => s.parse().ok(),
                _ => None,
            })
        };
        let given = |key: &str| pairs.iter().any(|(k, _)| k == key);
        let name = match (text("name"), given("name")) {
            (Some(name), _) => Some(name),
            (None, false) => text("fleet"),
            (None, true) => None,
        };
        let path = name
            .as_ref()
            .map_or_else(|| format!("queue[{at}]"), |n| format!("queue.{n}"));
        let section = open(r, &path, name.as_ref(), &pairs);
        let read = read_queue(r, &section, name.as_ref(), fleets, sound);
        if let Some(name) = name {
            if names.contains(&name) {
                r.complain(
                    ErrorKind::Conflict,
                    &section,
                    &queue::NAME.meta,
                    "is the name of another queue as well",
                );
            }
            names.push(name);
        }
        all.extend(read.map(Arc::new));
    }
    for fleet in fleets {
        if names.contains(&fleet.name) {
            continue;
        }
        let section = open(r, &format!("queue.{}", fleet.name), Some(&fleet.name), &[]);
        let read = read_queue(r, &section, Some(&fleet.name), fleets, sound);
        all.extend(read.map(Arc::new));
    }
    once_each(r);
    all
}

fn open(
    r: &mut Reader<'_>,
    path: &str,
    name: Option<&FleetName>,
    pairs: &[(String, Node)],
) -> Section {
    let prefixes = name.map(|n| {
        format!(
            "SPAWNPOINT_QUEUE_{}",
            n.as_str().to_ascii_uppercase().replace('-', "_")
        )
    });
    r.open(path, prefixes.into_iter().collect(), pairs, queue::ALL)
}

/// One variable or flag is read by every queue: what is wrong with it is said once.
fn once_each(r: &mut Reader<'_>) {
    let mut seen = Vec::new();
    r.errors.retain(|e| {
        if !e.path.starts_with("queue.") || !matches!(e.origin, Origin::Env(_) | Origin::Flag(_)) {
            return true;
        }
        let what = (e.origin.clone(), e.problem.clone());
        let first = !seen.contains(&what);
        seen.push(what);
        first
    });
}

/// `None` only when there are errors.
fn read_queue(
    r: &mut Reader<'_>,
    s: &Section,
    name: Option<&FleetName>,
    fleets: &[Arc<FleetConfig>],
    sound: bool,
) -> Option<QueueConfig> {
    let named = r.given(s, &queue::NAME.meta);
    let read_name = if named {
        r.get(s, &queue::NAME)
    } else {
        name.cloned()
    };
    let given_fleet = r.given(s, &queue::FLEET.meta);
    let read_fleet = if given_fleet {
        r.get(s, &queue::FLEET)
    } else {
        read_name.clone()
    };
    if !named && !given_fleet && name.is_none() {
        r.complain(
            ErrorKind::Missing,
            s,
            &queue::FLEET.meta,
            "is required: which fleet is this queue for?",
        );
    }
    for (given, meta, value) in [
        (named, &queue::NAME.meta, &read_name),
        (given_fleet, &queue::FLEET.meta, &read_fleet),
    ] {
        if let (false, Some(value)) = (given, value) {
            r.note(s, meta, value.to_string(), Origin::Default);
        }
    }
    let fleet = find_fleet(r, s, read_name.as_ref(), read_fleet.as_ref(), fleets, sound);
    let rules = read_rules(r, s, fleet);
    let regions = r.get(s, &queue::REGIONS);
    let (max_tickets, max_failures) = (
        r.get(s, &queue::MAX_TICKETS),
        r.get(s, &queue::MAX_FAILURES),
    );
    let rules = rules?;
    let unattended = read_unattended(r, s, &rules);
    let regions = regions?;
    if rules.latency().is_some() && regions.is_empty() {
        r.complain(
            ErrorKind::Conflict,
            s,
            &queue::LATENCY.meta,
            "needs regions: name those that players measure, regions = [\"eu\", \"us\"]",
        );
    }
    Some(QueueConfig {
        name: read_name?,
        fleet: read_fleet?,
        rules,
        regions,
        max_tickets: max_tickets? as usize,
        unattended: unattended?,
        max_failures: max_failures?,
    })
}

fn find_fleet<'f>(
    r: &mut Reader<'_>,
    s: &Section,
    name: Option<&FleetName>,
    fleet: Option<&FleetName>,
    fleets: &'f [Arc<FleetConfig>],
    sound: bool,
) -> Option<&'f FleetConfig> {
    let (name, fleet) = (name?, fleet?);
    let found = fleets.iter().find(|f| f.name == *fleet);
    if found.is_none() && sound {
        let names: Vec<_> = fleets.iter().map(|f| f.name.as_str()).collect();
        let there = names.join(", ");
        let (meta, problem) = if r.given(s, &queue::FLEET.meta) {
            (
                &queue::FLEET.meta,
                format!("there is no such fleet; there are: {there}"),
            )
        } else {
            (
                &queue::NAME.meta,
                format!("no fleet has this name: say fleet = \"...\", one of: {there}"),
            )
        };
        r.complain(ErrorKind::Invalid, s, meta, problem);
    }
    if name != fleet && fleets.iter().any(|f| f.name == *name) {
        r.complain(
            ErrorKind::Conflict,
            s,
            &queue::NAME.meta,
            format!("is the name of a fleet, whose own queue has that name, and this one is for {fleet}: choose another"),
        );
    }
    found.map(|f| &**f)
}

fn read_rules(r: &mut Reader<'_>, s: &Section, fleet: Option<&FleetConfig>) -> Option<Rules> {
    let most = fleet.map(|f| u32::try_from(f.policy.max_players).unwrap_or(u32::MAX));
    let size = if r.given(s, &queue::SESSION_SIZE.meta) {
        let size = r.get(s, &queue::SESSION_SIZE);
        if let (Some(size), Some(most), Some(fleet)) = (size, most, fleet)
            && size > most
        {
            r.complain(
                ErrorKind::Conflict,
                s,
                &queue::SESSION_SIZE.meta,
                format!(
                    "is more than max_players of the fleet {}, {most}",
                    fleet.name
                ),
            );
        }
        size
    } else {
        // A fleet for one player each has matches of one.
        let size = r.get(s, &queue::SESSION_SIZE)?;
        Some(size.min(most.unwrap_or(size)))
    };
    let min_partial = r.get(s, &queue::MIN_PARTIAL);
    let flush_wait = r.get(s, &queue::FLUSH_WAIT);
    let (skill, latency) = (r.get(s, &queue::SKILL), r.get(s, &queue::LATENCY));
    let (size, min_partial) = (size?, min_partial?);
    if min_partial > size {
        r.complain(
            ErrorKind::Conflict,
            s,
            &queue::MIN_PARTIAL.meta,
            format!("is more than session_size, {size}"),
        );
        return None;
    }
    match Rules::new(size, min_partial, flush_wait?, skill?, latency?) {
        Ok(rules) => Some(rules),
        Err(wrong) => {
            for e in wrong {
                r.complain(ErrorKind::Invalid, s, field(&e), words(&e));
            }
            None
        }
    }
}

/// The key that a rule's field was read from.
fn field(e: &RuleError) -> &'static Meta {
    match e.field.split('.').next() {
        Some("size") => &queue::SESSION_SIZE.meta,
        Some("min_partial") => &queue::MIN_PARTIAL.meta,
        Some("skill") => &queue::SKILL.meta,
        _ => &queue::LATENCY.meta,
    }
}

/// What is wrong, with the part of the key it is in.
fn words(e: &RuleError) -> String {
    match e.field.split_once('.') {
        Some((_, part)) => format!("{part} {e}"),
        None => e.to_string(),
    }
}

fn read_unattended(r: &mut Reader<'_>, s: &Section, rules: &Rules) -> Option<Duration> {
    let flush = rules.flush_wait();
    if !r.given(s, &queue::UNATTENDED.meta) {
        let by_default = flush.saturating_add(UNATTENDED_BEYOND_FLUSH);
        r.note(
            s,
            &queue::UNATTENDED.meta,
            show_duration(by_default),
            Origin::Default,
        );
        return Some(by_default);
    }
    let unattended = r.get(s, &queue::UNATTENDED)?;
    if unattended <= flush {
        r.complain(
            ErrorKind::Conflict,
            s,
            &queue::UNATTENDED.meta,
            format!(
                "must be longer than flush_wait, {}, or a lone player would be dropped instead of matched",
                show_duration(flush)
            ),
        );
    }
    Some(unattended)
}
