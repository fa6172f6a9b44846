//! `spawnpoint replay`.

use std::fs::File;
use std::io::{BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use spawnpoint_core::SessionId;
use spawnpoint_server::journal::{DIRECTORY, Difference, FunctionCount, Replay, Replayed, files};
use spawnpoint_wire::journal::{Outcome, Stepped};

use crate::args::{Format, Global, ReplayArgs, ServeArgs};
use crate::config_file::Source;
use crate::exit::Failure;
use crate::output::{bold, line, printable, show, table};

/// A journal shorter than this is read before a bar could be looked at, bytes.
const WORTH_A_BAR: u64 = 8 * 1024 * 1024;

/// Runs the logged decisions again.
pub(crate) fn run(args: &ReplayArgs, global: &Global) -> Result<(), Failure> {
    let session = args.session.as_deref().map(SessionId::from_str).transpose();
    let session = session.map_err(|e| Failure::Usage(format!("--session {e}")))?;
    let parts = parts(&journal(args)?)?;
    let mut steps = Vec::new();
    let replayed = {
        let replay = match session {
            Some(id) => Replay::of(id, |s| steps.push(told(s))),
            None => Replay::new(),
        };
        read(replay, &parts)?
    };
    if let Some(id) = session.filter(|_| steps.is_empty() && replayed.differences.is_empty()) {
        return Err(Failure::NotFound(format!(
            "no decision about the session {id} is in this log (any more)"
        )));
    }
    let mut answer = serde_json::to_value(&replayed).map_err(|e| Failure::Failed(e.to_string()))?;
    if session.is_some()
        && let Some(answer) = answer.as_object_mut()
    {
        answer.insert("decisions".to_owned(), Value::Array(steps.clone()));
    }
    if global.output == Format::Table {
        for step in &steps {
            line(&sentence(step))?;
        }
        if !steps.is_empty() {
            line("")?;
        }
    }
    show(global.output, &answer, || described(&replayed))?;
    if replayed.same {
        Ok(())
    } else {
        Err(Failure::Findings)
    }
}

/// The file or directory to read.
fn journal(args: &ReplayArgs) -> Result<PathBuf, Failure> {
    if let Some(path) = &args.path {
        return Ok(path.clone());
    }
    let serve = ServeArgs {
        state_dir: args.state_dir.clone(),
        ..ServeArgs::default()
    };
    let loaded = Source::locate(args.config.as_deref())?.load(&serve)?;
    Ok(loaded.config.server.state_dir.join(DIRECTORY))
}

/// The files of a journal, oldest first, with their lengths.
fn parts(path: &Path) -> Result<Vec<(PathBuf, u64)>, Failure> {
    let fail = |e: &std::io::Error| Failure::because(format!("cannot read {}", path.display()), e);
    let about = std::fs::metadata(path).map_err(|e| {
        if e.kind() == std::io::ErrorKind::NotFound {
            Failure::Failed(format!(
                "there is no log of decisions at {}: `up` keeps one with --decision-log 64Mi, or decision_log in [server]",
                path.display()
            ))
        } else {
            fail(&e)
        }
    })?;
    if !about.is_dir() {
        return Ok(vec![(path.to_owned(), about.len())]);
    }
    let all = files(path).map_err(|e| fail(&e))?;
    if all.is_empty() {
        return Err(Failure::Failed(format!(
            "there is no log of decisions in {}",
            path.display()
        )));
    }
    Ok(all.into_iter().map(|f| (f.path, f.length)).collect())
}

fn read(mut replay: Replay<'_>, parts: &[(PathBuf, u64)]) -> Result<Replayed, Failure> {
    let total = parts.iter().map(|(_, length)| length).sum();
    let bar = if total >= WORTH_A_BAR && std::io::stderr().is_terminal() {
        let bar = ProgressBar::new(total);
        let style = "{spinner} {bar:30} {binary_bytes}/{binary_total_bytes} {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar
    } else {
        ProgressBar::hidden()
    };
    for (at, (path, _)) in parts.iter().enumerate() {
        let name = path.file_name().map_or_else(
            || path.display().to_string(),
            |n| n.to_string_lossy().into_owned(),
        );
        let file = match File::open(path) {
            Ok(file) => file,
            // A running server made room meanwhile: the oldest go.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && at == 0 && parts.len() > 1 => {
                continue;
            }
            Err(e) => {
                let what = format!("cannot read {}", path.display());
                return Err(Failure::because(what, &e));
            }
        };
        replay
            .file(&name, BufReader::new(file), |n| bar.inc(n))
            .map_err(|e| Failure::because(format!("cannot read {}", path.display()), &e))?;
    }
    bar.finish_and_clear();
    Ok(replay.finish())
}

/// A step in words and fields.
fn told(step: &Stepped) -> Value {
    let (output, because) = match &step.outcome {
        Outcome::Accepted {
            phase,
            effects,
            because,
            ..
        } => {
            let effects: Vec<String> = effects.iter().map(|e| format!("{e:?}")).collect();
            let all = [vec![phase.as_str().to_owned()], effects].concat();
            (all.join(", "), because)
        }
        Outcome::Rejected { because, .. } => ("rejected".to_owned(), because),
    };
    let at = jiff::Timestamp::from_millisecond(step.now.0).map(|t| format!("{t:.3}"));
    json!({
        // The line of moments reads as Unix milliseconds when the server starts, and then follows the machine's own clock.
        "at": at.unwrap_or_default(),
        "function": "session::step",
        "input": format!("{:?}", step.event),
        "output": output,
        "because": because,
    })
}

fn sentence(step: &Value) -> String {
    let of = |name: &str| step.get(name).and_then(Value::as_str).unwrap_or_default();
    printable(&format!(
        "{}  {} -> {}: {}",
        of("at"),
        of("input"),
        of("output"),
        of("because")
    ))
}

fn described(r: &Replayed) -> String {
    let rows = r.functions.iter().map(row).collect();
    let mut parts = vec![table(
        &["FUNCTION", "SAME", "DIFFERENT", "NOT REPLAYED"],
        rows,
    )];
    parts.extend(r.differences.iter().map(difference));
    if r.left_out > 0 {
        parts.push(format!("... and {} more", grouped(r.left_out)));
    }
    let mut notes = vec![format!(
        "{} lines in {} files of {} runs; {} states written again were what their steps had led to",
        grouped(r.lines),
        grouped(r.files),
        grouped(r.runs),
        grouped(r.states_compared)
    )];
    if r.lost > 0 {
        notes.push(format!(
            "{} decisions are not in it: the server could not write them, and says so",
            grouped(r.lost)
        ));
    }
    if r.torn > 0 {
        notes.push(format!(
            "{} files end in half a line, as a process that is killed leaves them",
            grouped(r.torn)
        ));
    }
    parts.push(notes.join("\n"));
    parts.push(verdict(r));
    parts.join("\n\n")
}

fn row(f: &FunctionCount) -> Vec<String> {
    let mut not = Vec::new();
    if f.too_large > 0 {
        not.push(format!("{} too large to be written", grouped(f.too_large)));
    }
    if f.unknown > 0 {
        not.push(format!("{} after something unreadable", grouped(f.unknown)));
    }
    vec![
        f.function.to_owned(),
        grouped(f.same),
        grouped(f.different),
        if not.is_empty() {
            "0".to_owned()
        } else {
            not.join(", ")
        },
    ]
}

fn difference(d: &Difference) -> String {
    let whom: Vec<&str> = d.function.into_iter().chain(d.subject.as_deref()).collect();
    let whom = if whom.is_empty() {
        String::new()
    } else {
        format!(", {}", whom.join(" "))
    };
    let head = format!("{}:{}{whom}: {}", d.file, d.line, d.kind.about());
    let mut lines = vec![bold(&printable(&head))];
    lines.extend(d.what.iter().map(|w| format!("  {}", printable(w))));
    lines.join("\n")
}

fn verdict(r: &Replayed) -> String {
    let all = u64::try_from(r.differences.len()).unwrap_or(u64::MAX) + r.left_out;
    let of = |count: fn(&FunctionCount) -> u64| r.functions.iter().map(count).sum::<u64>();
    let not = of(|f| f.too_large + f.unknown) + r.lost;
    if all > 0 {
        return bold(&format!(
            "{} {}",
            grouped(all),
            if all == 1 {
                "difference"
            } else {
                "differences"
            }
        ));
    }
    let left = if not > 0 {
        format!("; {} could not be replayed", grouped(not))
    } else {
        String::new()
    };
    format!(
        "{} {} decisions, every one as it was{left}",
        bold("same:"),
        grouped(of(|f| f.same))
    )
}

/// `12,345`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, c) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use spawnpoint_server::journal::DifferenceKind;

    use super::*;

    fn replayed() -> Replayed {
        Replayed {
            same: true,
            files: 1,
            runs: 1,
            lines: 12_400,
            functions: vec![FunctionCount {
                function: "session::step",
                same: 12_345,
                ..FunctionCount::default()
            }],
            ..Replayed::default()
        }
    }

    #[test]
    fn what_is_the_same_is_counted() {
        let text = described(&replayed());
        assert!(text.contains("session::step  12,345  0"), "{text}");
        assert!(
            text.ends_with("same: 12,345 decisions, every one as it was"),
            "{text}"
        );
    }

    #[test]
    fn what_differs_is_said_with_its_place() {
        let mut r = replayed();
        r.same = false;
        r.lost = 3;
        r.torn = 1;
        r.differences = vec![Difference {
            kind: DifferenceKind::Different,
            file: "00000001.jsonl".into(),
            line: 17,
            function: Some("session::step"),
            subject: Some("x\u{1b}[31m".into()),
            what: vec!["phase: was Ready, is Running".into()],
        }];
        let text = described(&r);
        for want in [
            "00000001.jsonl:17, session::step x\u{fffd}[31m: the function decides differently now",
            "  phase: was Ready, is Running",
            "3 decisions are not in it",
            "1 files end in half a line",
            "1 difference",
        ] {
            assert!(text.contains(want), "{want}\n{text}");
        }
    }

    #[test]
    fn what_was_not_replayed_is_never_the_same() {
        let mut r = replayed();
        r.functions[0].too_large = 2;
        let text = described(&r);
        assert!(text.contains("2 too large to be written"), "{text}");
        assert!(
            text.ends_with("as it was; 2 could not be replayed"),
            "{text}"
        );
    }

    #[test]
    fn numbers_are_grouped() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(n), text);
        }
    }
}
