//! What a game is started with: its arguments and its environment. Pure.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::record::Record;
use super::state_dir::{RESULTS_FILE, SESSION_FILE};

/// What every game gets of the caller's environment, and all that it gets unless the template inherits.
const BASE_ENV: [&str; 3] = ["PATH", "HOME", "LANG"];
/// For a caller that has no PATH itself (a service manager's environment may be empty).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The part of the caller's environment that a shim, and so its game, gets.
pub(super) fn base_env(
    inherit: bool,
    caller: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    let mut env: Vec<_> = caller
        .filter(|(name, _)| {
            let name = name.to_string_lossy();
            if inherit {
                !name.starts_with("SPAWNPOINT_")
                    && !name.starts_with("REDIS_")
                    && name != "DATABASE_URL"
            } else {
                BASE_ENV.contains(&&*name)
            }
        })
        .collect();
    if !env.iter().any(|(name, _)| name == "PATH") {
        env.push(("PATH".into(), DEFAULT_PATH.into()));
    }
    env
}

/// The variables given on top of the base. The template's come first, the instance's own over them, the documented ones last:
/// nobody can make a game listen on another port than its own.
pub(super) fn game_env(record: &Record, dir: &Path) -> BTreeMap<String, OsString> {
    let mut env: BTreeMap<String, OsString> = record
        .template
        .env
        .iter()
        .chain(&record.env)
        .map(|(name, value)| (name.clone(), value.into()))
        .collect();
    let mut set = |name: &str, value: OsString| {
        env.insert(name.to_owned(), value);
    };
    if let Some(port) = record.port {
        set("PORT", port.to_string().into());
    }
    if let Some(facts) = &record.facts {
        set("SESSION_ID", facts.session.clone().into());
    }
    set("SPAWNPOINT_FLEET", record.fleet.clone().into());
    set("SPAWNPOINT_INSTANCE", record.id.clone().into());
    set("SPAWNPOINT_SESSION_FILE", dir.join(SESSION_FILE).into());
    set("SPAWNPOINT_RESULTS_FILE", dir.join(RESULTS_FILE).into());
    env
}

/// Expands `$(NAME)` as Kubernetes does, so that one template means the same in both worlds: an unknown name stays as written,
/// `$$` is one `$` (so `$$(NAME)` is the text `$(NAME)`), any other `$` is itself.
pub(super) fn expand(text: &str, lookup: impl Fn(&str) -> Option<OsString>) -> OsString {
    let mut out = OsString::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push(before);
        let after = &from[1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push("$");
            rest = tail;
        } else if let Some((name, tail)) = after
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match lookup(name) {
                Some(value) => out.push(value),
                None => out.push(format!("$({name})")),
            }
            rest = tail;
        } else {
            out.push("$");
            rest = after;
        }
    }
    out.push(rest);
    out
}

/// Program and arguments with every `$(NAME)` of the game's environment in place.
pub(super) fn arguments(
    command: &[String],
    own: &BTreeMap<String, OsString>,
    base: &[(OsString, OsString)],
) -> Vec<OsString> {
    let lookup = |name: &str| {
        own.get(name).cloned().or_else(|| {
            base.iter()
                .find(|(n, _)| n.to_str() == Some(name))
                .map(|(_, value)| value.clone())
        })
    };
    command.iter().map(|text| expand(text, lookup)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_follows_kubernetes() {
        let lookup = |name: &str| match name {
            "PORT" => Some(OsString::from("20001")),
            "A" => Some(OsString::from("$(PORT)")),
            _ => None,
        };
        for (text, want) in [
            ("--port=$(PORT)", "--port=20001"),
            ("$(PORT)$(PORT)", "2000120001"),
            ("$$(PORT)", "$(PORT)"),
            ("$$$(PORT)", "$20001"),
            ("$(NOPE)", "$(NOPE)"),
            ("$(A)", "$(PORT)"),
            ("$PORT costs $5", "$PORT costs $5"),
            ("$(PORT", "$(PORT"),
            ("$", "$"),
            ("$$", "$"),
            ("", ""),
            ("\u{1f9c2}$(PORT)\u{1f9c2}", "\u{1f9c2}20001\u{1f9c2}"),
        ] {
            assert_eq!(expand(text, lookup), OsString::from(want), "{text}");
        }
    }

    #[test]
    fn the_caller_keeps_its_secrets() {
        let caller = || {
            [
                ("PATH", "/bin"),
                ("HOME", "/h"),
                ("EDITOR", "vi"),
                ("SPAWNPOINT_KEYS", "k"),
                ("DATABASE_URL", "d"),
                ("REDIS_HOST", "r"),
                ("REDIS_URL", "r"),
            ]
            .into_iter()
            .map(|(n, v)| (OsString::from(n), OsString::from(v)))
        };
        let names = |inherit| {
            base_env(inherit, caller())
                .into_iter()
                .map(|(n, _)| n.into_string().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(true), ["PATH", "HOME", "EDITOR"]);
        assert_eq!(names(false), ["PATH", "HOME"]);
        assert_eq!(
            base_env(false, std::iter::empty()),
            [("PATH".into(), DEFAULT_PATH.into())]
        );
    }
}
