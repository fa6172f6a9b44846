//! `docs/configuration.md`, printed from the table that the parser reads by.

use super::keys::{Fallback, Meta, fleet, queue, server};

const HEAD: &str = r#"# Configuration

<!-- Generated from crates/server/src/config/. Write it anew with: make gen -->

Spawnpoint starts with no configuration at all: `spawnpoint up` without a file plays the bundled game. To run your own game
servers, write a `spawnpoint.toml`:

```toml
[[fleet]]
name = "arena"
run = { command = ["./arena-server", "--port", "$(PORT)"] }
```

and start it with `spawnpoint up` in the same directory. (`spawnpoint run -- ./arena-server` needs no file either.)

## Where a value comes from

The first of these that says something holds:

1. a **flag** of `spawnpoint up` (`--port 9000`);
2. an **environment variable**: `SPAWNPOINT_SERVER_<KEY>` for `[server]`, `SPAWNPOINT_FLEET_<FLEET>_<KEY>` for a fleet
   (`SPAWNPOINT_FLEET_SPICE_IDLE_TIMEOUT=10m`; hyphens and dots become `_`), `SPAWNPOINT_QUEUE_<QUEUE>_<KEY>` for a queue, or one
   of the names in the tables below. A variable set to nothing counts as not set;
3. the **file**: `./spawnpoint.toml`, or the one named by `--config` or `SPAWNPOINT_CONFIG`;
4. the **default**.

`spawnpoint doctor` lists every value with its source. The file is read whole before anything is started: all errors are shown at
once, each with its key, value, line and what is allowed. A key that nobody knows is an error that names the nearest one.

While `spawnpoint up` runs it reads the file again whenever it changes. Fleets take effect for sessions that start from then on; no
session, no player and no ticket is dropped. A file with errors changes nothing and the errors are shown. Ports, hosts and `state_dir` need
a restart, and it says so.

## How values are written

- Keys are written `idle_timeout` or `idleTimeout`; both at once with different values is an error.
- **Durations**: `"30s"`, `"5m"`, `"1h30m"`, `"250ms"`, `"30d"`, or a number of seconds (`30`, `0.5`). Only `"none"` is unlimited;
  `0` would mean at once and is refused where that makes no sense.
- **Sizes**: `"512Mi"` (1024 x 1024), `"512MB"` or `"512M"` (1000 x 1000), or a number of bytes.
- **Lists** are TOML lists; in variables and flags, texts with commas between them. Tables in variables are written as in TOML:
  `SPAWNPOINT_FLEET_SPICE_READY='{ log = "listening" }'`.
- Relative paths in the file begin at the file's directory; those in flags and variables where the command was started.
"#;

const BETWEEN: &str = r#"
Without `keys`, without `guests` and with nothing bound but loopback the server is in **dev mode**: every local caller counts as a
backend. Anything reachable from other machines refuses to start until it has `keys` or `guests`:

```toml
[server]
host = "0.0.0.0"
guests = true
```

is the same as `spawnpoint up --host 0.0.0.0 --guests`, for friends on the same network.

## `[[fleet]]`

One for each kind of game server.

"#;

const QUEUES: &str = r#"
A rule that its mode cannot see is refused with a sentence that says which: with `expose = "host_port"` no gateway carries the data,
so `activity` can only be `heartbeat`, and `idle_timeout` has to be longer than `heartbeat`.

## `[[queue]]`

Where players wait for others ([Matchmaking](matchmaking.md)). Every fleet has a queue of its own name with these defaults; a
`[[queue]]` of that name changes it, one of another name is one more for the fleet. The variables `SESSION_SIZE`,
`MIN_PARTIAL_SESSION_SIZE` and `FLUSH_WAIT_SECONDS` and the flags of the same names are for every queue, and outrank the file.

"#;

const TAIL: &str = r#"
## Examples

A WebSocket server that prints a line when it is ready, with two started ahead and an hour to play:

```toml
[[fleet]]
name = "arena"
run = { command = ["./arena-server"], env = { ARENA_MAP = "dunes" }, memory = "256Mi" }
ready = { log = "listening" }
warm = { replicas = 2, max_age = "1h" }
max_duration = "1h"
max_instances = 50
```

A UDP server that players reach at its own port, and whose clients send heartbeats:

```toml
[[fleet]]
name = "racer"
run = { command = ["./racer-server", "-port=$(PORT)"], cpu = "500m" }
protocol = "udp"
expose = "host_port"
idle_timeout = "2m"
on_crash = "end"
```

Ranked duels beside the fleet's own queue, in which anybody meets anybody:

```toml
[[fleet]]
name = "arena"
run = { command = ["./arena-server"] }

[[queue]]
name = "ranked"
fleet = "arena"
min_partial_session_size = 2
skill = { start = 50, per_second = 5, most = 400 }
```

A server for the internet, behind a proxy that ends TLS. The secret comes from the environment
(`SPAWNPOINT_KEYS=backend:$(openssl rand -hex 24)`), not from the file:

```toml
[server]
public_url = "https://games.example.com"
instance_ports = "20000-20999"
retention = "90d"

[[fleet]]
name = "arena"
run = { command = ["/usr/local/bin/arena-server"] }
access = ["key"]
```
"#;

/// The whole page, as committed in `docs/configuration.md`.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    out.push_str("\n## `[server]`\n\n");
    table(&mut out, server::ALL, true);
    out.push_str(BETWEEN);
    table(&mut out, fleet::ALL, false);
    out.push_str(QUEUES);
    table(&mut out, queue::ALL, true);
    out.push_str(TAIL);
    out
}

fn table(out: &mut String, metas: &[&Meta], with_env: bool) {
    out.push_str(if with_env {
        "| key | takes | default | also set by | meaning |\n|---|---|---|---|---|\n"
    } else {
        "| key | takes | default | meaning |\n|---|---|---|---|\n"
    });
    for m in metas {
        let default = match m.fallback {
            Fallback::Value("") => "none".to_owned(),
            Fallback::Value(v) => format!("`{v}`"),
            Fallback::Words(w) => w.to_owned(),
            Fallback::Required => "required".to_owned(),
        };
        let env = if with_env {
            let names: Vec<String> = m.env.iter().map(|e| format!("`{e}`")).collect();
            format!(" {} |", names.join(", "))
        } else {
            String::new()
        };
        out.push_str(&format!(
            "| `{}` | {} | {default} |{env} {} |\n",
            m.name, m.form, m.meaning
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Overrides, parse};

    /// Set to rewrite the committed page instead of comparing with it.
    const REWRITE: &str = "SPAWNPOINT_REWRITE";

    #[test]
    fn the_committed_page_is_true() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        if std::env::var_os(REWRITE).is_some() {
            std::fs::write(&path, reference()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == reference(),
            "docs/configuration.md is not what the code says: run `make gen`"
        );
    }

    #[test]
    fn every_example_parses() {
        let page = reference();
        let mut count = 0;
        for block in page.split("```toml\n").skip(1) {
            let text = block.split("```").next().unwrap();
            let text = if text.contains("[[fleet]]") {
                text.to_owned()
            } else {
                format!("{text}\n[[fleet]]\nname = \"a\"\nrun = {{ command = [\"x\"] }}\n")
            };
            let overrides = Overrides::at(Some("/srv".into()), None);
            parse(&text, &|_| None, &overrides).unwrap_or_else(|e| panic!("{text}\n{e:#?}"));
            count += 1;
        }
        assert!(count >= 5);
    }
}
