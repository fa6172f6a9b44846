//! Reading the file again when it changes. What cannot change under running games is said, not done.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use spawnpoint_server::Server;
use spawnpoint_server::config::{Config, ServerConfig};
use tokio_util::sync::CancellationToken;

use crate::args::ServeArgs;
use crate::config_file::Source;
use crate::output::{complain, note};

/// How often the file is looked at: a person who saves it waits no longer than this.
const LOOK: Duration = Duration::from_millis(500);

/// What tells one state of a file from another. Editors replace files, so the inode counts too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    size: u64,
    inode: u64,
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let m = std::fs::metadata(path).ok()?;
    Some(Stamp {
        modified: m.modified().ok(),
        size: m.size(),
        inode: m.ino(),
    })
}

/// Puts the file's present content in place whenever it changes, until told to stop. Sessions that live keep what they have.
pub(crate) async fn follow(
    source: Source,
    args: ServeArgs,
    running: Config,
    server: Arc<Server>,
    stop: CancellationToken,
) {
    let Some(path) = source.path.clone() else {
        return;
    };
    let mut seen = stamp(&path);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = stamp(&path);
        // A file that is being replaced is not there for a moment; that is no change to nothing.
        if now == seen || now.is_none() {
            continue;
        }
        seen = now;
        match source.load(&args) {
            Ok(loaded) => {
                let (config, fixed) = merge(&running, loaded.config);
                let fleets: Vec<&str> = config.fleets.iter().map(|f| f.name.as_str()).collect();
                note(&format!(
                    "{} was read again; fleets: {}",
                    path.display(),
                    fleets.join(", ")
                ));
                if !fixed.is_empty() {
                    note(&format!(
                        "  takes effect with the next start only: {}",
                        fixed.join(", ")
                    ));
                }
                server.reload(config);
            }
            Err(e) => {
                complain(&e.to_string());
                note("  nothing was changed: the configuration before it stays in place");
            }
        }
    }
}

/// The new configuration with what is bound to the running process kept, and the names of what was kept though it differs.
fn merge(running: &Config, new: Config) -> (Config, Vec<&'static str>) {
    let (was, wants) = (&running.server, &new.server);
    let same_port = |a: &[std::net::SocketAddr], b: &[std::net::SocketAddr]| {
        let port = |l: &[std::net::SocketAddr]| l.last().map_or(0, std::net::SocketAddr::port);
        // Any port (0) is the one that was found.
        port(b) == 0 || port(a) == port(b)
    };
    let mut fixed = Vec::new();
    let mut keep = |differs: bool, name| {
        if differs {
            fixed.push(name);
        }
    };
    keep(!same_port(&was.public, &wants.public), "server.port");
    keep(!same_port(&was.admin, &wants.admin), "server.admin_port");
    keep(!same_port(&was.sdk, &wants.sdk), "server.sdk_port");
    keep(open(was) != open(wants), "server.host");
    keep(was.state_dir != wants.state_dir, "server.state_dir");
    keep(
        was.instance_ports != wants.instance_ports,
        "server.instance_ports",
    );
    keep(was.tcp_ports != wants.tcp_ports, "server.tcp_ports");
    keep(
        was.decision_log != wants.decision_log,
        "server.decision_log",
    );
    keep(was.public_url != wants.public_url, "server.public_url");
    keep(
        was.allowed_hosts != wants.allowed_hosts,
        "server.allowed_hosts",
    );
    keep(
        was.allowed_origins != wants.allowed_origins,
        "server.allowed_origins",
    );
    keep(
        was.keys.is_empty() != wants.keys.is_empty() || was.guests != wants.guests,
        "server.keys, server.guests",
    );
    let server = ServerConfig {
        public: was.public.clone(),
        admin: was.admin.clone(),
        sdk: was.sdk.clone(),
        state_dir: was.state_dir.clone(),
        instance_ports: was.instance_ports,
        tcp_ports: was.tcp_ports,
        decision_log: was.decision_log,
        // The gateway was told these at its start; the two must agree on whom they answer.
        public_url: was.public_url.clone(),
        allowed_hosts: was.allowed_hosts.clone(),
        allowed_origins: was.allowed_origins.clone(),
        // Whether anybody is asked who they are changes with a start only: never by a slip in a file that is being edited.
        keys: if was.keys.is_empty() == new.server.keys.is_empty() {
            new.server.keys.clone()
        } else {
            was.keys.clone()
        },
        guests: was.guests,
        ..new.server
    };
    (
        Config {
            server,
            fleets: new.fleets,
            queues: new.queues,
        },
        fixed,
    )
}

fn open(c: &ServerConfig) -> (bool, bool, bool) {
    let any = |l: &[std::net::SocketAddr]| l.iter().any(|a| !a.ip().is_loopback());
    (any(&c.public), any(&c.admin), any(&c.sdk))
}

#[cfg(test)]
mod tests {
    use spawnpoint_server::config::{Overrides, parse};

    use super::*;

    fn config(text: &str) -> Config {
        let overrides = Overrides::at(Some("/srv".into()), None);
        parse(text, &|_| None, &overrides).unwrap().config
    }

    const FLEET: &str = "[[fleet]]\nname = \"a\"\nrun = { command = [\"x\"] }\n";

    #[test]
    fn fleets_change_and_doors_stay() {
        let running = config(&format!(
            "[server]\nport = 9000\nkeys = {{ a = \"0123456789abcdef\" }}\n{FLEET}"
        ));
        let new = config(&format!(
            "[server]\nport = 9001\nretention = \"1d\"\nguests = true\nstate_dir = \"b\"\n{FLEET}warm = 3\n"
        ));
        let (merged, fixed) = merge(&running, new);
        assert_eq!(
            fixed,
            [
                "server.port",
                "server.state_dir",
                "server.keys, server.guests"
            ]
        );
        assert_eq!(merged.server.public, running.server.public);
        assert_eq!(merged.server.keys, running.server.keys);
        assert_eq!(merged.server.retention, Duration::from_secs(86_400));
        assert_eq!(merged.fleets[0].warm, 3);
    }

    #[test]
    fn what_did_not_change_is_not_named() {
        let mut running = config(&format!("[server]\nport = 0\n{FLEET}"));
        running.server.public = vec!["127.0.0.1:40123".parse().unwrap()];
        assert_eq!(
            merge(&running, config(&format!("[server]\nport = 0\n{FLEET}"))).1,
            [""; 0]
        );
    }
}
