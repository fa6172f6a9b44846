//! The parser as people meet it: tables of what is said and what becomes of it, and inputs that no person would write.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use spawnpoint_core::lifecycle::{ActivityRule, Joinable, OnCrash, Policy, Sight};
use spawnpoint_runtime::{Protocol, ReadyRule};
use spawnpoint_wire::tcp::{TcpTerms, TokenRule};

use super::assemble::defaults_of;
use super::error::{ErrorKind, Origin};
use super::keys::{fleet, queue, server};
use super::*;

pub(super) const MINIMAL: &str = "[[fleet]]\nname = \"arena\"\nrun = { command = [\"./arena\"] }\n";

fn overrides() -> Overrides {
    Overrides::at(Some("/srv/game".into()), Some("/home/dev".into()))
}

pub(super) fn with(
    text: &str,
    env: &[(&str, &str)],
    flags: &[(&str, &str, &str)],
) -> Result<Parsed, Vec<ConfigError>> {
    let env: HashMap<String, String> = env
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let mut overrides = overrides();
    for (path, flag, value) in flags {
        overrides.set(path, flag, *value);
    }
    parse(text, &|name| env.get(name).cloned(), &overrides)
}

pub(super) fn fine(text: &str) -> Config {
    with(text, &[], &[])
        .unwrap_or_else(|e| panic!("{text}\n{e:#?}"))
        .config
}

/// A fleet with these lines added.
fn arena(lines: &str) -> String {
    format!("{MINIMAL}{lines}\n")
}

pub(super) fn errors(text: &str) -> Vec<String> {
    match with(text, &[], &[]) {
        Ok(p) => panic!("{text}\nis fine: {p:#?}"),
        Err(e) => e.iter().map(ToString::to_string).collect(),
    }
}

#[track_caller]
pub(super) fn one_error(text: &str, parts: &[&str]) {
    let all = errors(text);
    assert_eq!(all.len(), 1, "{text}\n{all:#?}");
    for part in parts {
        assert!(
            all[0].contains(part),
            "{text}\n{:?} is not in {:?}",
            part,
            all[0]
        );
    }
}

#[test]
fn a_minimal_file_has_the_documented_defaults() {
    let c = fine(MINIMAL);
    let s = &c.server;
    assert_eq!(
        s.public.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["127.0.0.1:8080", "[::1]:8080"]
    );
    assert_eq!(
        s.admin.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["127.0.0.1:8081", "[::1]:8081"]
    );
    assert_eq!(
        s.sdk.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["127.0.0.1:8082", "[::1]:8082"]
    );
    assert_eq!(s.state_dir, PathBuf::from("/srv/game/.spawnpoint"));
    assert_eq!(s.instance_ports, (20_000, 24_999));
    assert_eq!(s.retention, Duration::from_secs(30 * 86_400));
    assert!(s.dev_mode() && s.keys.is_empty() && !s.guests);
    let f = &c.fleets[0];
    assert_eq!(
        *f.policy,
        Policy::default(),
        "the keys' defaults are those of the policy"
    );
    assert_eq!(f.template.command, ["/srv/game/./arena"]);
    assert_eq!(
        f.template.workdir.as_deref(),
        Some(std::path::Path::new("/srv/game"))
    );
    assert_eq!(
        (f.warm, f.warm_allowed, f.warm_max_age, f.max_instances),
        (0, true, None, None)
    );
    assert_eq!(
        (
            f.template.protocol,
            &f.template.ready,
            f.template.host_port,
            f.template.inherit_env
        ),
        (Protocol::WebSocket, &ReadyRule::Dial, false, false)
    );
    assert!(f.guests);
}

#[test]
fn saying_every_default_changes_nothing() {
    let mut env: Vec<(String, String)> = Vec::new();
    for (name, value) in defaults_of(server::ALL) {
        env.push((
            format!("SPAWNPOINT_SERVER_{}", name.to_ascii_uppercase()),
            value.to_owned(),
        ));
    }
    for (name, value) in defaults_of(fleet::ALL) {
        env.push((
            format!(
                "SPAWNPOINT_FLEET_ARENA_{}",
                name.replace('.', "_").to_ascii_uppercase()
            ),
            value.to_owned(),
        ));
    }
    for (name, value) in defaults_of(queue::ALL) {
        env.push((
            format!("SPAWNPOINT_QUEUE_ARENA_{}", name.to_ascii_uppercase()),
            value.to_owned(),
        ));
    }
    assert!(env.len() > 35);
    let pairs: Vec<(&str, &str)> = env.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let said = with(MINIMAL, &pairs, &[]).unwrap_or_else(|e| panic!("{e:#?}"));
    assert_eq!(said.config, fine(MINIMAL));
}

#[test]
fn every_key_is_read() {
    // A key of the table that the parser forgets would be documented and do nothing.
    let text = arena("port = 7777\nprotocol = \"tcp\"\ntcp_auth = \"none\"\nmax_duration_limit = \"1h\"\nactivity = \"any\"\nguests = true\naccess = [\"key\", \"guest\"]")
        .replace("run = {", "run = { workdir = \"w\", cpu = 1, memory = \"1Gi\", env = { A = \"1\" }, ");
    let text = format!(
        "[server]\npublic_url = \"https://a.example\"\nstate_dir = \"s\"\nname = \"x\"\n{text}"
    );
    let parsed = with(&text, &[], &[]).unwrap_or_else(|e| panic!("{e:#?}"));
    let noted: Vec<&str> = parsed.settings.iter().map(|s| s.path.as_str()).collect();
    for m in server::ALL {
        assert!(
            noted.contains(&format!("server.{}", m.name).as_str()),
            "server.{}",
            m.name
        );
    }
    for m in fleet::ALL.iter().filter(|m| m.name != "run.image") {
        assert!(
            noted.contains(&format!("fleet.arena.{}", m.name).as_str()),
            "{}",
            m.name
        );
    }
    for m in queue::ALL {
        assert!(
            noted.contains(&format!("queue.arena.{}", m.name).as_str()),
            "queue.arena.{}",
            m.name
        );
    }
    assert_eq!(
        parsed.settings.len(),
        noted.iter().collect::<std::collections::HashSet<_>>().len(),
        "none twice"
    );
}

/// `tests/it/durations.rs` takes from the documentation which durations there are, so what takes one has to say so.
#[test]
fn whatever_takes_a_duration_says_so() {
    let taken =
        |variable: &str, path: &str, value: &str| match with(MINIMAL, &[(variable, value)], &[]) {
            Ok(_) => true,
            Err(errors) => errors.iter().all(|e| e.path != path),
        };
    let mut tables = Vec::new();
    for (path, all) in [
        ("server", server::ALL),
        ("fleet.arena", fleet::ALL),
        ("queue.arena", queue::ALL),
    ] {
        for m in all {
            let path = format!("{path}.{}", m.name);
            let variable = format!("SPAWNPOINT_{}", path.replace('.', "_").to_ascii_uppercase());
            let takes = taken(&variable, &path, "31m10s") && !taken(&variable, &path, "31m10q");
            assert!(
                !takes || m.form.contains("duration"),
                "{path} takes {:?}",
                m.form
            );
            if m.form.contains('{') {
                tables.push(m.name);
            }
        }
    }
    // What is inside a table is not tried out: of these `max_age` is a duration, and says so.
    assert_eq!(tables, ["keys", "warm", "ready", "skill", "latency"]);
    let warm = fleet::ALL.iter().find(|m| m.name == "warm");
    assert!(warm.is_some_and(|m| m.form.contains("`max_age` is a duration")));
}

#[test]
fn flag_over_variable_over_file_over_default() {
    let text = format!("[server]\nport = 1111\n{MINIMAL}");
    let port = |env: &[(&str, &str)], flags: &[(&str, &str, &str)]| {
        let p = with(&text, env, flags).unwrap();
        let s = p
            .settings
            .iter()
            .find(|s| s.path == "server.port")
            .unwrap()
            .clone();
        (p.config.server.public[0].port(), s.origin)
    };
    let variable = [("SPAWNPOINT_PORT", "2222")];
    assert_eq!(port(&[], &[]), (1111, Origin::File { line: 2 }));
    assert_eq!(
        port(&variable, &[]),
        (2222, Origin::Env("SPAWNPOINT_PORT".into()))
    );
    assert_eq!(
        port(&[("SPAWNPOINT_SERVER_PORT", "3333"), variable[0]], &[]).0,
        3333
    );
    assert_eq!(
        port(&variable, &[("server.port", "--port", "4444")]),
        (4444, Origin::Flag("--port".into()))
    );
    assert_eq!(
        port(&[("SPAWNPOINT_PORT", "")], &[]).0,
        1111,
        "set to nothing is not set"
    );
    assert_eq!(fine(MINIMAL).server.public[0].port(), 8080);
}

#[test]
fn variables_reach_every_form_of_value() {
    let env = [
        (
            "SPAWNPOINT_KEYS",
            "ci:0123456789abcdef,web:fedcba9876543210",
        ),
        ("SPAWNPOINT_ALLOWED_HOSTS", "a.example, b.example"),
        (
            "SPAWNPOINT_SERVER_ALLOWED_ORIGINS",
            "http://A.example:5173/",
        ),
        ("SPAWNPOINT_PUBLIC_URL", "https://games.example.com/"),
        ("HOSTNAME", "pod-7"),
        (
            "SPAWNPOINT_FLEET_ARENA_WARM",
            "{ replicas = 3, maxAge = \"1h\" }",
        ),
        ("SPAWNPOINT_FLEET_ARENA_READY", "{ log = \"up\" }"),
        (
            "SPAWNPOINT_FLEET_ARENA_RUN_COMMAND",
            "[\"bin/other\", \"-x\"]",
        ),
        ("SPAWNPOINT_FLEET_ARENA_RUN_MEMORY", "64MB"),
        ("SPAWNPOINT_FLEET_ARENA_WARNINGS", "10s,2m"),
        ("SPAWNPOINT_FLEET_ARENA_IDLE_TIMEOUT", "none"),
        ("SPAWNPOINT_FLEET_ARENA_MAX_DURATION", "90"),
        ("SPAWNPOINT_FLEET_ARENA_ON_CRASH", "end"),
    ];
    let c = with(MINIMAL, &env, &[])
        .unwrap_or_else(|e| panic!("{e:#?}"))
        .config;
    assert_eq!(
        c.server
            .keys
            .iter()
            .map(|k| k.name.as_str())
            .collect::<Vec<_>>(),
        ["ci", "web"]
    );
    assert_eq!(c.server.allowed_hosts, ["a.example", "b.example"]);
    assert_eq!(c.server.allowed_origins, ["http://a.example:5173"]);
    assert_eq!(
        c.server.public_url.as_deref(),
        Some("https://games.example.com")
    );
    assert_eq!(c.server.name, "pod-7");
    let f = &c.fleets[0];
    assert_eq!(
        (f.warm, f.warm_max_age),
        (3, Some(Duration::from_secs(3600)))
    );
    assert_eq!(f.template.ready, ReadyRule::Log("up".into()));
    assert_eq!(
        f.template.command,
        ["/home/dev/bin/other", "-x"],
        "from where the command was started"
    );
    assert_eq!(f.template.memory_bytes, Some(64_000_000));
    assert_eq!(
        f.policy.warnings,
        [Duration::from_secs(120), Duration::from_secs(10)]
    );
    assert_eq!(
        (f.policy.idle, f.policy.max, f.policy.max_limit),
        (
            None,
            Some(Duration::from_secs(90)),
            Some(Duration::from_secs(90))
        )
    );
    assert_eq!(f.policy.on_crash, OnCrash::End);
}

#[test]
fn both_spellings_mean_the_same() {
    let a = fine(&arena(
        "idle_timeout = 60\nmax_instances = 4\nwarm = { replicas = 1, max_age = 60 }\nexpose = \"host_port\"\nprotocol = \"udp\"",
    ));
    let b = fine(&arena(
        "idleTimeout = \"1m\"\nmaxInstances = 4\nwarm = { replicas = 1, maxAge = \"1m\" }\nexpose = \"hostPort\"\nprotocol = \"udp\"",
    ));
    assert_eq!(a, b);
    assert!(
        with(&arena("idle_timeout = 60\nidleTimeout = 60"), &[], &[]).is_ok(),
        "both and equal"
    );
    one_error(
        &arena("idle_timeout = 60\nidleTimeout = 61"),
        &["fleet.arena.idle_timeout", "\"idleTimeout\"", "keep one"],
    );
}

#[test]
fn unknown_keys_name_the_nearest() {
    one_error(
        &arena("idle_timout = 5"),
        &[
            "fleet.arena.idle_timout (line 4)",
            "did you mean \"idle_timeout\"?",
        ],
    );
    one_error(
        &arena("command = [\"x\"]"),
        &["did you mean \"run.command\"?"],
    );
    one_error(
        &MINIMAL.replace("run = {", "run = { comand = 1, "),
        &["fleet.arena.run.comand", "did you mean \"command\"?"],
    );
    one_error(
        &arena("warm = { replica = 1 }"),
        &["did you mean \"replicas\"?"],
    );
    one_error(
        &format!("[servre]\n{MINIMAL}"),
        &["did you mean \"server\"?"],
    );
    one_error(&format!("port = 1\n{MINIMAL}"), &["move it below [server]"]);
    one_error(
        &arena("zzzzzz = 1"),
        &["is not a known key; known are name, run"],
    );
    one_error(&arena("scheduling = \"packed\""), &["Kubernetes"]);
    one_error(
        "[fleet.arena]\nrun = { command = [\"x\"] }",
        &["write [[fleet]] with name"],
    );
}

#[test]
fn every_error_comes_at_once() {
    let all = errors(
        "[server]\nport = \"8080\"\nhosts = 1\nkeys = [\"short\"]\n[[fleet]]\nname = \"A B\"\nrun = { command = \"./x --y\" }\nidle_timeout = 0\nmax_duration = \"soon\"\nready = \"maybe\"\n[[fleet]]\n",
    );
    let text = all.join("\n");
    for part in [
        "server.port = \"8080\" (line 2): must be a port",
        "server.hosts (line 3)",
        "server.keys (line 4)",
        "fleet[0].name = \"A B\"",
        "fleet[0].run.command = \"./x --y\" (line 7): must be a list: [\"./x\", \"--y\"]",
        "fleet[0].idle_timeout = 0 (line 8): must be longer than 0 (0 would end it at once; only \"none\" is unlimited)",
        "fleet[0].max_duration = \"soon\"",
        "fleet[0].ready = \"maybe\"",
        "fleet[1].name: is required",
        "fleet[1].run.command: is required",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn what_its_mode_cannot_see_is_refused() {
    one_error(
        &arena("expose = \"host_port\"\nactivity = \"client_data\""),
        &[
            "fleet.arena.activity = \"client_data\" (line 5)",
            "cannot be seen",
            "\"heartbeat\"",
        ],
    );
    one_error(
        &arena("expose = \"host_port\"\nactivity = \"any\""),
        &["cannot be seen"],
    );
    one_error(
        &arena("expose = \"host_port\"\nheartbeat = \"10m\""),
        &["fleet.arena.idle_timeout", "every 10m"],
    );
    one_error(
        &arena("activity = \"heartbeat\"\nidle_timeout = \"5s\""),
        &["comes too late"],
    );
    one_error(
        &arena("protocol = \"udp\""),
        &[
            "UDP through the gateway is not in this release",
            "host_port",
        ],
    );
    one_error(
        &arena("tcp_auth = \"none\""),
        &["fleet.arena.tcp_auth", "protocol = \"tcp\""],
    );
    one_error(
        &arena("protocol = \"tcp\"\nexpose = \"host_port\"\nproxy_protocol = true"),
        &["fleet.arena.proxy_protocol", "the gateway makes"],
    );
    one_error(
        &arena("protocol = \"tcp\"\ntcp_auth = \"sometimes\""),
        &["\"required\", \"none\""],
    );
    one_error(&arena("expose = \"nodePort\""), &["Kubernetes"]);
    one_error(
        &arena("protocol = \"tcp\"\nexpose = \"host_port\"\nready = { http = \"/\" }"),
        &["does not answer HTTP"],
    );
    one_error(
        "[[fleet]]\nname = \"a\"\nrun = { image = \"game:v1\" }",
        &[
            "fleet.a.run.image = \"game:v1\"",
            "give run.command instead",
        ],
    );
    for (more, token) in [
        ("", TokenRule::OffLoopback),
        ("tcp_auth = \"required\"", TokenRule::Always),
        ("tcpAuth = \"none\"", TokenRule::Never),
    ] {
        let tcp = fine(&arena(&format!(
            "protocol = \"tcp\"\nproxy_protocol = true\n{more}"
        )));
        let terms = TcpTerms {
            token,
            proxy_protocol: true,
        };
        assert_eq!(tcp.fleets[0].tcp, terms);
        assert_eq!(tcp.server.tcp_ports, (25000, 27999));
    }
    let direct = fine(&arena("expose = \"hostPort\"\nprotocol = \"udp\""));
    let p = &direct.fleets[0].policy;
    assert_eq!(
        (p.sight, p.activity),
        (Sight::Direct, ActivityRule::Heartbeat)
    );
    assert!(direct.fleets[0].template.host_port);
}

#[test]
fn numbers_that_contradict_each_other_are_refused() {
    one_error(
        &arena("max_duration = \"2h\"\nmax_duration_limit = \"1h\""),
        &["longer than max_duration_limit, 1h"],
    );
    one_error(
        &arena("max_duration = \"none\"\nmax_duration_limit = \"1h\""),
        &["longer than max_duration_limit"],
    );
    assert_eq!(
        fine(&arena(
            "max_duration = \"1h\"\nmax_duration_limit = \"none\""
        ))
        .fleets[0]
            .policy
            .max_limit,
        None
    );
    one_error(
        &arena("warm = 3\nmax_instances = 2"),
        &["fleet.arena.warm = 3", "more than max_instances, 2"],
    );
    one_error(
        &arena("port = 7777\nmax_instances = 2"),
        &["only one instance can listen"],
    );
    assert_eq!(fine(&arena("port = 7777")).fleets[0].max_instances, Some(1));
    one_error(&arena("port = 20001"), &["instance_ports 20000-24999"]);
    one_error(&arena("port = 8081"), &["Spawnpoint itself listens"]);
    one_error(
        &format!("[server]\nadmin_port = 8080\n{MINIMAL}"),
        &["server.admin_port = 8080", "is also port"],
    );
    one_error(
        &format!("[server]\nport = 20000\n{MINIMAL}"),
        &["lies in instance_ports"],
    );
    one_error(&format!("{MINIMAL}{MINIMAL}"), &["another fleet"]);
    one_error(
        &arena("guests = false\naccess = [\"guest\"]"),
        &["keep one"],
    );
    one_error("", &["there is no fleet"]);
    let zero = fine(&format!(
        "[server]\nport = 0\nadmin_port = 0\nsdk_port = 0\n{MINIMAL}"
    ));
    assert_eq!(zero.server.public[0].port(), 0, "any free port, for each");
}

#[test]
fn doors_to_other_machines_need_a_lock() {
    one_error(
        &format!("[server]\nhost = \"0.0.0.0\"\n{MINIMAL}"),
        &[
            "server.host = \"0.0.0.0\" (line 2)",
            "SPAWNPOINT_KEYS=name:secret",
            "--guests",
        ],
    );
    let both = errors(&format!(
        "[server]\nhost = \"::\"\nadmin_host = \"192.0.2.1\"\n{MINIMAL}"
    ));
    assert_eq!(both.len(), 2, "{both:?}");
    one_error(
        &format!("[server]\nadmin_host = \"0.0.0.0\"\nguests = true\n{MINIMAL}"),
        &["server.admin_host", "end every game"],
    );
    assert!(
        !fine(&format!(
            "[server]\nhost = \"0.0.0.0\"\nguests = true\n{MINIMAL}"
        ))
        .server
        .dev_mode()
    );
    assert!(
        !fine(&format!(
            "[server]\nhost = \"0.0.0.0\"\nkeys = {{ a = \"0123456789abcdef\" }}\n{MINIMAL}"
        ))
        .server
        .dev_mode()
    );
    for origins in [
        "*",
        "null",
        "example.com",
        "ftp://x",
        "https://a/b",
        "https://",
        "https://a:0",
    ] {
        one_error(
            &format!("[server]\nallowed_origins = [{origins:?}]\n{MINIMAL}"),
            &["any page"],
        );
    }
    one_error(
        &format!("[server]\nallowed_hosts = [\"*.example.com\"]\n{MINIMAL}"),
        &["without scheme, port or wildcard"],
    );
}

#[test]
fn secrets_are_in_no_error_and_no_listing() {
    let secret = "hunter2hunter2hunter2";
    for text in [
        format!("[server]\nkeys = [\"{secret}\"]\n{MINIMAL}"),
        format!("[server]\nkeys = [\"a:{secret}\", \"a:{secret}x\"]\n{MINIMAL}"),
        format!("[server]\nkeys = [\"a:{secret}\", \"b:{secret}\"]\n{MINIMAL}"),
        format!("[server]\nkeys = [\"{secret}:ci\"]\n{MINIMAL}"),
        format!("[server]\nkeys = \"{secret}\n{MINIMAL}"),
        format!("[server]\nkeys = [\"a:{secret}\"\nport = 1\n{MINIMAL}"),
        format!("[server]\nkeys = {{ a = [\"{secret}\"] }}\n{MINIMAL}"),
        MINIMAL.replace(
            "run = {",
            &format!("run = {{ env = {{ PASSWORD = [\"{secret}\"] }},"),
        ),
    ] {
        let all = with(&text, &[], &[]).expect_err("refused");
        assert!(!format!("{all:?}").contains("hunter2"), "{all:#?}");
    }
    let all = with(MINIMAL, &[("SPAWNPOINT_KEYS", secret)], &[]).expect_err("refused");
    assert!(!format!("{all:?}").contains("hunter2"), "{all:#?}");
    let p = with(
        &format!("[server]\nkeys = [\"a:{secret}\"]\n{MINIMAL}").replace(
            "run = {",
            &format!("run = {{ env = {{ P = \"{secret}\" }},"),
        ),
        &[],
        &[],
    )
    .unwrap();
    assert!(
        p.describe_sources()
            .iter()
            .any(|l| l == "server.keys = (hidden) (line 2)"),
        "{:#?}",
        p.settings
    );
    assert!(!format!("{:?}", (&p.settings, &p.config.server)).contains("hunter2"));
}

#[test]
fn games_cannot_be_given_what_spawnpoint_gives() {
    for name in ["PORT", "SESSION_ID", "SPAWNPOINT_TOKEN"] {
        one_error(
            &MINIMAL.replace("run = {", &format!("run = {{ env = {{ {name} = \"1\" }},")),
            &[name, "given by Spawnpoint"],
        );
    }
    let c = fine(&MINIMAL.replace(
        "run = {",
        "run = { env = { A = 1, B = true, \"c-d\" = \"$(PORT)\" },",
    ));
    assert_eq!(
        c.fleets[0].template.env.get("c-d").map(String::as_str),
        Some("$(PORT)")
    );
    assert_eq!(
        c.fleets[0].template.env.get("A").map(String::as_str),
        Some("1")
    );
}

#[test]
fn rules_and_choices_are_read() {
    let ready = |r: &str| {
        fine(&arena(&format!("ready = {r}"))).fleets[0]
            .template
            .ready
            .clone()
    };
    assert_eq!(ready("\"dial\""), ReadyRule::Dial);
    assert_eq!(ready("\"sdk\""), ReadyRule::Sdk);
    assert_eq!(ready("\"none\""), ReadyRule::None);
    assert_eq!(
        ready("{ http = \"/up?x=1\" }"),
        ReadyRule::Http("/up?x=1".into())
    );
    assert_eq!(
        ready("{ log = \"ready: \" }"),
        ReadyRule::Log("ready: ".into())
    );
    for bad in [
        "{ http = \"up\" }",
        "{ http = \"/a\", log = \"b\" }",
        "{}",
        "7",
        "{ log = \"\" }",
        "{ http = \"/a b\" }",
    ] {
        assert_eq!(errors(&arena(&format!("ready = {bad}"))).len(), 1, "{bad}");
    }
    let f = fine(&arena(
        "warm = \"none\"\njoinable = \"open\"\nmax_players = 4\naccess = [\"key\"]\nlabels = { team = \"a\" }",
    ));
    let f = &f.fleets[0];
    assert_eq!(
        (
            f.warm,
            f.warm_allowed,
            f.policy.joinable,
            f.policy.max_players,
            f.guests
        ),
        (0, false, Joinable::Open, 4, false)
    );
    one_error(&arena("max_players = 101"), &["1 to 100"]);
    one_error(&arena("warm = -1"), &["0 to 10000"]);
    one_error(&arena("warm = \"auto\""), &["not in this release"]);
    one_error(&arena("warm = \"3\""), &["a number"]);
    one_error(&arena("labels = { a = 1 }"), &["a table of"]);
    one_error(
        &arena("on_crash = \"retry\""),
        &["one of \"replace\", \"restart\", \"end\""],
    );
    one_error(
        &MINIMAL.replace("run = {", "run = { memory = \"12\", "),
        &["at least 1Mi"],
    );
    one_error(
        &MINIMAL.replace("run = {", "run = { cpu = 0, "),
        &["number of cores"],
    );
    one_error(
        &MINIMAL.replace("[\"./arena\"]", "[]"),
        &["a list of texts"],
    );
    one_error(&arena("termination_grace = \"none\""), &["a duration"]);
    assert_eq!(
        fine(&arena("reconnect_grace = 0")).fleets[0]
            .policy
            .reconnect,
        Duration::ZERO
    );
}

#[test]
fn state_is_beside_the_file_or_in_the_users_state_home() {
    let dir = |text: &str, env: &[(&str, &str)], base: Option<&str>| {
        let env: HashMap<String, String> = env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let overrides = Overrides::at(base.map(Into::into), Some("/home/dev".into()));
        parse(text, &|n| env.get(n).cloned(), &overrides)
            .map(|p| p.config.server.state_dir.display().to_string())
    };
    let set = format!("[server]\nstate_dir = \"s\"\n{MINIMAL}");
    assert_eq!(dir(MINIMAL, &[], Some("/a")).unwrap(), "/a/.spawnpoint");
    assert_eq!(dir(&set, &[], Some("/a")).unwrap(), "/a/s");
    assert_eq!(
        dir(&set, &[("SPAWNPOINT_STATE_DIR", "t")], Some("/a")).unwrap(),
        "/home/dev/t"
    );
    assert_eq!(
        dir(MINIMAL, &[("XDG_STATE_HOME", "/x"), ("HOME", "/h")], None).unwrap(),
        "/x/spawnpoint/default"
    );
    assert_eq!(
        dir(
            MINIMAL,
            &[("XDG_STATE_HOME", "relative"), ("HOME", "/h")],
            None
        )
        .unwrap(),
        "/h/.local/state/spawnpoint/default"
    );
    let none = dir(MINIMAL, &[], None).expect_err("nowhere to go");
    assert!(none[0].to_string().contains("--state-dir"), "{none:?}");
}

#[test]
fn misspelled_variables_are_found() {
    let names = [
        "SPAWNPOINT_SERVER_PROT",
        "SPAWNPOINT_SERVER_PORT",
        "SPAWNPOINT_FLEET_ARENA_WRAM",
        "SPAWNPOINT_FLEET_OTHER_WARM",
        "SPAWNPOINT_QUEUE_ARENA_SKILL",
        "SPAWNPOINT_QUEUE_ARENA_SKIL",
        "SPAWNPOINT_LOG",
        "PATH",
    ];
    let found = unknown_variables(names.map(str::to_owned), &fine(MINIMAL));
    assert_eq!(
        found,
        [
            (
                "SPAWNPOINT_FLEET_ARENA_WRAM".to_owned(),
                Some("SPAWNPOINT_FLEET_ARENA_WARM".to_owned())
            ),
            ("SPAWNPOINT_FLEET_OTHER_WARM".to_owned(), None),
            (
                "SPAWNPOINT_QUEUE_ARENA_SKIL".to_owned(),
                Some("SPAWNPOINT_QUEUE_ARENA_SKILL".to_owned())
            ),
            (
                "SPAWNPOINT_SERVER_PROT".to_owned(),
                Some("SPAWNPOINT_SERVER_PORT".to_owned())
            ),
        ]
    );
}

#[test]
fn a_broken_file_says_where_and_not_what_it_cut_off() {
    let all = with(
        "[[fleet]]\nname = \"a\"\nrun = { command = [\"x\" }\n",
        &[],
        &[],
    )
    .expect_err("broken");
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(all[0].kind, ErrorKind::Syntax);
    let two = with(
        "[[fleet]]\nname = = 1\nrun = { command = [\"x\"] }\nidle_timeout = 0\n",
        &[],
        &[],
    )
    .expect_err("broken");
    assert_eq!(
        two.iter().map(|e| e.origin.to_string()).collect::<Vec<_>>(),
        ["line 2", "line 4"],
        "{two:#?}"
    );
    assert!(
        all[0].to_string().starts_with("line 3: not valid TOML"),
        "{all:#?}"
    );
    let large = format!("{MINIMAL}# {}", "x".repeat(super::MAX_FILE));
    one_error(&large, &["at most"]);
    let deep = format!("a = {}1{}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(with(&deep, &[], &[]).is_err());
}

#[test]
fn what_is_missing_or_wrong_has_a_code() {
    let kinds = [
        ErrorKind::Syntax,
        ErrorKind::UnknownKey,
        ErrorKind::Missing,
        ErrorKind::Invalid,
        ErrorKind::Conflict,
        ErrorKind::Unsupported,
        ErrorKind::Unsafe,
    ];
    let codes: std::collections::HashSet<_> = kinds
        .into_iter()
        .map(|kind| {
            ConfigError {
                kind,
                path: String::new(),
                origin: Origin::Default,
                value: None,
                problem: String::new(),
            }
            .code()
        })
        .collect();
    assert_eq!(codes.len(), kinds.len());
}

/// TOML values of any form, nested a little.
fn any_value() -> impl Strategy<Value = toml::Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(toml::Value::Integer),
        any::<f64>().prop_map(toml::Value::Float),
        any::<bool>().prop_map(toml::Value::Boolean),
        prop_oneof![
            Just("none".to_owned()),
            Just("5m".to_owned()),
            Just("0.0.0.0".to_owned()),
            "\\PC{0,12}".boxed()
        ]
        .prop_map(toml::Value::String),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(toml::Value::Array),
            prop::collection::btree_map(
                "replicas|max_age|http|log|command|env|image|[a-zA-Z_]{1,8}",
                inner,
                0..4
            )
            .prop_map(|m| toml::Value::Table(m.into_iter().collect())),
        ]
    })
}

fn any_section(metas: &'static [&'static super::keys::Meta]) -> impl Strategy<Value = toml::Value> {
    let names: Vec<String> = metas
        .iter()
        .map(|m| m.name.split('.').next().unwrap_or(m.name).to_owned())
        .collect();
    prop::collection::btree_map(prop::sample::select(names), any_value(), 0..8)
        .prop_map(|m| toml::Value::Table(m.into_iter().collect()))
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = with(&text, &[], &[]);
    }

    #[test]
    fn no_torn_file_panics(cut in 0usize..400, insert in "\\PC{0,4}") {
        let whole = super::reference();
        let start = whole.find("[[fleet]]").unwrap_or(0);
        let at = (start + cut..).find(|i| whole.is_char_boundary(*i)).unwrap_or(start);
        let torn = format!("{}{insert}{}", &whole[start..at.min(whole.len())], MINIMAL);
        let _ = with(&torn, &[], &[]);
    }

    #[test]
    fn no_values_panic_and_every_error_names_its_key(
        s in any_section(server::ALL),
        f in prop::collection::vec(any_section(fleet::ALL), 0..3),
        q in prop::collection::vec(any_section(queue::ALL), 0..3),
    ) {
        let mut top = toml::Table::new();
        top.insert("server".into(), s);
        top.insert("fleet".into(), toml::Value::Array(f));
        top.insert("queue".into(), toml::Value::Array(q));
        let text = toml::to_string(&top).unwrap();
        if let Err(all) = with(&text, &[], &[]) {
            prop_assert!(!all.is_empty());
            for e in all {
                prop_assert!(!e.path.is_empty() && !e.problem.is_empty() && !e.to_string().contains('\n'), "{e:?}\n{text}");
            }
        }
    }

    #[test]
    fn no_variable_panics(at in 0usize..60, value in prop_oneof!["\\PC{0,40}", "[\\[{][a-z\"=, \\]}]{0,20}"]) {
        let mut names: Vec<String> = server::ALL.iter().map(|m| format!("SPAWNPOINT_SERVER_{}", m.name.to_ascii_uppercase())).collect();
        names.extend(fleet::ALL.iter().map(|m| format!("SPAWNPOINT_FLEET_ARENA_{}", m.name.replace('.', "_").to_ascii_uppercase())));
        names.extend(queue::ALL.iter().map(|m| format!("SPAWNPOINT_QUEUE_ARENA_{}", m.name.to_ascii_uppercase())));
        names.push("SESSION_SIZE".into());
        let name = &names[at % names.len()];
        let _ = with(MINIMAL, &[(name, &value)], &[]);
    }
}

#[test]
fn another_kind_of_file_is_refused_without_advice_for_each_line() {
    let keys: String = (0..3_000).map(|n| format!("k{n} = 1\n")).collect();
    let errors = parse(
        &format!("[server]\n{keys}"),
        &|_| None,
        &Overrides::default(),
    )
    .unwrap_err();
    assert!(errors.len() >= 3_000);
    let told: usize = errors.iter().map(|e| e.to_string().len()).sum();
    assert!(told < 500_000, "{told} bytes of errors");
    assert!(errors[0].problem.contains("known are"));
    let errors = parse(&"=\n".repeat(3_000), &|_| None, &Overrides::default()).unwrap_err();
    assert_eq!(errors.len(), 3_000, "one for each line");
}
