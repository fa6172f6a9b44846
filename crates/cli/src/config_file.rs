//! Finding and reading the configuration, and the bundled games it may name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use spawnpoint_server::config::{
    Config, ConfigError, FleetConfig, MAX_FILE, Origin, Overrides, Setting, parse,
    unknown_variables,
};

use crate::args::ServeArgs;
use crate::exit::Failure;

/// The file that is read when none is named.
const FILE: &str = "spawnpoint.toml";
/// What is run when there is no file: the bundled games. The same file serves `up` in a clone of the repository.
const BUNDLED: &str = include_str!("../../../spawnpoint.toml");
/// Games that ship beside the executable.
pub(crate) const GAMES: [&str; 2] = ["spice", "arena-tcp"];

/// A configuration that was found and not yet read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The file, if there is one.
    pub(crate) path: Option<PathBuf>,
    /// Used when there is no file.
    text: String,
    /// Where the caller stands.
    caller_dir: PathBuf,
    /// State is kept there unless somebody says otherwise (for `run`).
    state_dir: Option<PathBuf>,
    /// Whether games get the caller's environment.
    inherit_env: bool,
}

/// A configuration as it holds.
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) settings: Vec<Setting>,
}

impl Source {
    /// The file named, or `./spawnpoint.toml`, or the bundled game.
    ///
    /// # Errors
    /// When a named file does not exist, or there is no file and no bundled game either.
    pub(crate) fn locate(named: Option<&Path>) -> Result<Self, Failure> {
        let caller_dir = caller_dir()?;
        let found = |path: PathBuf| Self {
            path: Some(path),
            text: String::new(),
            caller_dir: caller_dir.clone(),
            state_dir: None,
            inherit_env: false,
        };
        if let Some(named) = named {
            let path = caller_dir.join(named);
            return if path.is_file() {
                Ok(found(path))
            } else {
                Err(Failure::Usage(format!(
                    "there is no configuration file {}",
                    path.display()
                )))
            };
        }
        let path = caller_dir.join(FILE);
        if path.is_file() {
            return Ok(found(path));
        }
        if bundled("spice").is_none() {
            return Err(Failure::Usage(format!(
                "there is no {FILE} here, and the bundled game `spice` is neither beside this executable nor in PATH. \
                 Run any server with `spawnpoint run -- ./your-server`, or write a {FILE} (docs/configuration.md)"
            )));
        }
        Ok(Self {
            path: None,
            text: BUNDLED.to_owned(),
            caller_dir: caller_dir.clone(),
            state_dir: None,
            inherit_env: false,
        })
    }

    /// A configuration that is nowhere but here.
    ///
    /// # Errors
    /// When the present directory is gone.
    pub(crate) fn text(text: String, state_dir: Option<PathBuf>) -> Result<Self, Failure> {
        Ok(Self {
            path: None,
            text,
            caller_dir: caller_dir()?,
            state_dir,
            inherit_env: false,
        })
    }

    /// The same, with the caller's environment for the games.
    pub(crate) fn inheriting_environment(mut self) -> Self {
        self.inherit_env = true;
        self
    }

    /// Reads it with variables and flags.
    ///
    /// # Errors
    /// Every error there is, one a line.
    pub(crate) fn load(&self, args: &ServeArgs) -> Result<Loaded, Failure> {
        let text = match &self.path {
            Some(path) => read(path)?,
            None => self.text.clone(),
        };
        let base_dir = self
            .path
            .as_deref()
            .and_then(Path::parent)
            .map(Path::to_owned);
        let mut overrides = Overrides::at(base_dir, Some(self.caller_dir.clone()));
        self.flags(&mut overrides, args);
        let parsed = parse(&text, &|name| std::env::var(name).ok(), &overrides)
            .map_err(|e| self.complain(&e))?;
        let mut config = parsed.config;
        if let Ok(absolute) = std::path::absolute(&config.server.state_dir) {
            config.server.state_dir = absolute;
        }
        for fleet in &mut config.fleets {
            resolve_bundled(fleet);
            if self.inherit_env {
                Arc::make_mut(fleet).template.inherit_env = true;
            }
        }
        Ok(Loaded {
            config,
            settings: parsed.settings,
        })
    }

    fn flags(&self, overrides: &mut Overrides, args: &ServeArgs) {
        let mut set = |key: &str, flag: &str, value: Option<String>| {
            if let Some(value) = value {
                overrides.set(key, flag, value);
            }
        };
        set("server.host", "--host", args.host.clone());
        set("server.port", "--port", args.port.map(|p| p.to_string()));
        set(
            "server.admin_port",
            "--admin-port",
            args.admin_port.map(|p| p.to_string()),
        );
        set(
            "server.sdk_port",
            "--sdk-port",
            args.sdk_port.map(|p| p.to_string()),
        );
        set(
            "server.guests",
            "--guests",
            args.guests.then(|| "true".to_owned()),
        );
        set(
            "server.decision_log",
            "--decision-log",
            args.decision_log.clone(),
        );
        set(
            "queue.*.session_size",
            "--session-size",
            args.session_size.clone(),
        );
        set(
            "queue.*.min_partial_session_size",
            "--min-partial-session-size",
            args.min_partial_session_size.clone(),
        );
        set(
            "queue.*.flush_wait",
            "--flush-wait-seconds",
            args.flush_wait_seconds.clone(),
        );
        let own = if std::env::var_os("SPAWNPOINT_STATE_DIR").is_none() {
            self.state_dir.as_ref()
        } else {
            None
        };
        let state = args
            .state_dir
            .as_ref()
            .or(own)
            .map(|p| p.display().to_string());
        set("server.state_dir", "--state-dir", state);
    }

    /// All errors, each on a line with its place.
    fn complain(&self, errors: &[ConfigError]) -> Failure {
        let file = self.path.as_ref().map_or_else(
            || "the configuration".to_owned(),
            |p| p.display().to_string(),
        );
        let mut text = match errors.len() {
            1 => format!("{file} has an error"),
            n => format!("{file} has {n} errors"),
        };
        if errors
            .iter()
            .all(|e| matches!(e.origin, Origin::Flag(_) | Origin::Env(_)))
        {
            text = "the flags or variables do not fit".to_owned();
        }
        for e in errors {
            text.push_str(&format!("\n  {e}"));
        }
        Failure::Usage(text)
    }
}

fn caller_dir() -> Result<PathBuf, Failure> {
    std::env::current_dir()
        .map_err(|e| Failure::because("the present directory cannot be used", &e))
}

fn read(path: &Path) -> Result<String, Failure> {
    let cannot =
        |e: &std::io::Error| Failure::because(format!("cannot read {}", path.display()), e);
    let size = std::fs::metadata(path).map_err(|e| cannot(&e))?.len();
    if size > MAX_FILE as u64 {
        return Err(Failure::Usage(format!(
            "{} has {size} bytes; at most {MAX_FILE} are read",
            path.display()
        )));
    }
    let bytes = std::fs::read(path).map_err(|e| cannot(&e))?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::Usage(format!("{} is not UTF-8 text", path.display())))
}

/// A bundled game: beside this executable, else in PATH.
pub(crate) fn bundled(game: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(game)));
    beside.filter(|p| is_program(p)).or_else(|| in_path(game))
}

/// A program found by PATH.
pub(crate) fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|d| d.is_absolute())
        .map(|d| d.join(program))
        .find(|p| is_program(p))
}

/// Whether this is a file that may be executed.
pub(crate) fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Bundled games are found beside the executable, where PATH alone would not lead.
fn resolve_bundled(fleet: &mut Arc<FleetConfig>) {
    let named = fleet
        .template
        .command
        .first()
        .filter(|p| GAMES.contains(&p.as_str()));
    let Some(path) = named.and_then(|p| bundled(p)) else {
        return;
    };
    if let Some(program) = Arc::make_mut(fleet).template.command.first_mut() {
        *program = path.display().to_string();
    }
}

/// Variables that look like ours and mean nothing, in words.
pub(crate) fn misspelled_variables(config: &Config) -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    unknown_variables(names, config)
        .into_iter()
        .map(|(name, meant)| match meant {
            Some(meant) => format!("{name} sets nothing; did you mean {meant}?"),
            None => format!("{name} sets nothing: there is no such key, fleet or queue"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_configuration_is_sound() {
        let source = Source::text(BUNDLED.to_owned(), Some("/state".into())).unwrap();
        let loaded = source
            .load(&ServeArgs::default())
            .unwrap_or_else(|e| panic!("{e}"));
        let names: Vec<_> = loaded
            .config
            .fleets
            .iter()
            .map(|f| f.name.as_str())
            .collect();
        // The first one is what `POST /api/new-game` and `/play` start.
        assert_eq!(names, ["spice", "arena"]);
        // Costs nothing until somebody asks.
        assert_eq!(loaded.config.fleets[1].warm, 0);
        assert_eq!(loaded.config.server.state_dir, Path::new("/state"));
    }

    #[test]
    fn errors_come_with_their_flags() {
        let source = Source::text(BUNDLED.to_owned(), Some("/state".into())).unwrap();
        let args = ServeArgs {
            host: Some("0.0.0.0".into()),
            ..ServeArgs::default()
        };
        let Err(e) = source.load(&args) else {
            panic!("accepted")
        };
        assert_eq!(e.exit_code(), crate::exit::USAGE);
        assert!(
            e.to_string().contains("(--host)") && e.to_string().contains("--guests"),
            "{e}"
        );
    }
}
