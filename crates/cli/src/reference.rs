//! `docs/cli.md`, printed from the definition of the command line. Used by its test only; a terminal has `--help`.
#![cfg(test)]

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};

use crate::args::Cli;
use crate::exit::CODES;

/// Set to rewrite the committed page instead of comparing with it.
const REWRITE: &str = "SPAWNPOINT_REWRITE";

const HEAD: &str = "\
# The command line

<!-- Generated from crates/cli/src/args.rs. Write it anew with: make gen -->

`spawnpoint` runs the servers (`up`, `run`), and asks a running one (everything else) over its admin listener. `make install` puts it
in PATH; in the repository `make play` builds and starts it.
";

const TAIL: &str = "
## What it reads from the environment

| variable | for |
|---|---|
| `SPAWNPOINT_ADMIN_URL` | `--server` |
| `SPAWNPOINT_KEY` | the secret of a backend key, for servers that have keys |
| `SPAWNPOINT_CONFIG` | `--config` |
| `SPAWNPOINT_LOG` | what `up` and `run` log: a level, or directives such as `warn,spawnpoint_gateway=debug`; default `warn,spawnpoint=info` |
| `SPAWNPOINT_LOG_FORMAT` | `--log-format` |
| `NO_COLOR` | set to anything, it turns colours off; they are only used on a terminal anyway |

Every key of the configuration can be set by a variable too: [configuration.md](configuration.md).

## Output

`--output json` gives the server's answer as it is: the bodies of the HTTP API (`/api/docs`). Streams (`sessions watch`, and the ready line of
`up` and `run`) give one object a line. Results are on standard output; progress, the log and errors on standard error.

## Stopping

SIGINT (Ctrl-C), SIGTERM and SIGHUP mean the same to `up` and `run`: no new sessions, every game is told to end (SIGTERM, then SIGKILL after
its `termination_grace`), players' connections close with the reason `shutdown`, records are written, exit code 0. A second signal, half
a second later or more, stops at once; what was not finished is finished by the next start. With `--detach` games stay, and the next start takes them over. So it is after a
`kill -9`: whatever ran goes on, and what ended meanwhile is recorded with its true exit code.
";

fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut out = String::from(HEAD);
    let _ = write!(out, "\n```\n{CODES}\n```\n");
    let _ = writeln!(out, "\n## Everywhere\n");
    arguments(&mut out, root.get_arguments().filter(|a| a.is_global_set()));
    for verb in root
        .get_subcommands()
        .filter(|c| !c.is_hide_set() && c.get_name() != "help")
    {
        command(&mut out, verb, "spawnpoint", 2);
    }
    out.push_str(TAIL);
    out
}

fn command(out: &mut String, c: &Command, parent: &str, level: usize) {
    let name = format!("{parent} {}", c.get_name());
    let about = c.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = write!(
        out,
        "\n{} `{name}`\n\n{about}{}\n",
        "#".repeat(level),
        if about.ends_with('.') { "" } else { "." }
    );
    let subcommands: Vec<&Command> = c
        .get_subcommands()
        .filter(|s| s.get_name() != "help")
        .collect();
    if subcommands.is_empty() {
        let usage = c.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ");
        let _ = write!(out, "\n```\n{usage}\n```\n");
        let own: Vec<&Arg> = c
            .get_arguments()
            .filter(|a| !a.is_global_set() && a.get_id() != "help")
            .collect();
        if !own.is_empty() {
            out.push('\n');
            arguments(out, own.into_iter());
        }
        if let Some(after) = c.get_after_help() {
            let _ = write!(out, "\n```\n{after}\n```\n");
        }
    }
    for s in subcommands {
        command(out, s, &name, level + 1);
    }
}

fn arguments<'a>(out: &mut String, all: impl Iterator<Item = &'a Arg>) {
    out.push_str("| argument | meaning |\n|---|---|\n");
    for a in all.filter(|a| a.get_id() != "help" && a.get_id() != "version") {
        let mut name = match (a.get_short(), a.get_long()) {
            (Some(s), Some(l)) => format!("-{s}, --{l}"),
            (None, Some(l)) => format!("--{l}"),
            _ => String::new(),
        };
        if a.get_action().takes_values() {
            let value = a
                .get_value_names()
                .and_then(|v| v.first())
                .map(ToString::to_string)
                .unwrap_or_default();
            name = if name.is_empty() {
                format!("<{value}>")
            } else {
                format!("{name} <{value}>")
            };
        }
        let mut meaning = a
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default()
            .replace('\n', " ")
            .replace('|', "\\|");
        // A help of one sentence loses its full stop on the way here.
        if !meaning.ends_with(['.', '!', '?']) {
            meaning.push('.');
        }
        let values: Vec<String> = a
            .get_possible_values()
            .iter()
            .filter(|_| a.get_action().takes_values())
            .map(|v| format!("`{}`", v.get_name()))
            .collect();
        if !values.is_empty() {
            let _ = write!(meaning, " One of {}.", values.join(", "));
        }
        let default = a.get_default_values().first();
        if let Some(default) = default.filter(|_| a.get_action().takes_values()) {
            let _ = write!(meaning, " Default `{}`.", default.to_string_lossy());
        }
        if let Some(env) = a.get_env() {
            let _ = write!(meaning, " Also set by `{}`.", env.to_string_lossy());
        }
        let _ = writeln!(out, "| `{name}` | {meaning} |");
    }
}

#[test]
fn the_committed_page_is_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page(),
        "docs/cli.md is not what the code says: run `make gen`"
    );
}
