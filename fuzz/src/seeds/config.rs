//! Configurations.

use super::{Seeds, texts};

pub(crate) fn files() -> Seeds {
    texts(&[
        ("bundled", include_str!("../../../spawnpoint.toml")),
        (
            "smallest",
            "[[fleet]]\nname = \"g\"\nrun = { command = [\"g\"] }\n",
        ),
        (
            "server",
            r#"#env SPAWNPOINT_SERVER_PORT=9090
#env SPAWNPOINT_KEYS=ci:0123456789abcdef
#flag server.admin_port=9091
[server]
host = ["127.0.0.1", "::1"]
public_url = "https://games.example.com"
allowed_hosts = ["a.example.com"]
allowed_origins = ["https://play.example.com"]
guests = true
keys = ["app:0123456789abcdef"]
state_dir = "state"
instance_ports = "20000-20999"
tcp_ports = "25000-25999"
retention = "30d"
sessions_per_key = 100
guest_starts_per_minute = 10

[[fleet]]
name = "chess"
run = { command = ["./chess", "$(PORT)"], env = { A = "1" }, workdir = "games" }
"#,
        ),
        (
            "fleet",
            r#"#env SPAWNPOINT_FLEET_CHESS_WARM=1
#flag fleet.chess.idle_timeout=45s
[[fleet]]
name = "chess"
run = { command = ["./chess"] }
protocol = "http"
ready = "http:/health"
warm = 2
maxInstances = 10
cpu = "500m"
memory = "512Mi"
idle_timeout = "1h30m"
max_duration = "none"
end_by = "all"
joinable = "open"
on_crash = "replace"
expose = "gateway"
labels = { team = "a" }

[[queue]]
fleet = "chess"
name = "ranked"
session_size = 2
flush_wait = 10
"#,
        ),
        (
            "env-only",
            "#env FLEET=x\n#env SESSION_SIZE=4\n#env SPAWNPOINT_PUBLIC_URL=http://h:1\n[[fleet]]\nname='a'\nrun.command=['a']\n",
        ),
        (
            "mistakes",
            "port = 1\n[server]\nprot = 8080\nport = 99999\nkeys = [\"short:x\"]\n[[fleet]]\nname = \"A\"\nwarm = -1\nidle_timeout = 0\n[fleet.x]\n",
        ),
        (
            "broken",
            "[server\nkeys = [\"ci:very-secret-value\"\nx = = 1\n",
        ),
        (
            "dotted",
            "a.b.c.d.e = 1\n[[fleet]]\nname = \"a\"\nrun.command = [\"a\"]\nrun.env.A = \"b\"\n",
        ),
    ])
}

pub(crate) fn units() -> Seeds {
    texts(&[
        ("seconds", "30"),
        ("fraction", "0.5"),
        ("composed", "1d2h30m15s250ms"),
        ("spaced", "1h 30m"),
        ("limit", "3660d"),
        ("size", "512MiB"),
        ("size-fraction", "1.5G"),
        ("cpu", "500m"),
        ("cores", "1.25"),
        ("none", "\"none\""),
        ("text", "\"90s\""),
        ("negative", "-1"),
    ])
}
