//! Who said what: flag over variable over file over default, with every error and every source kept.

use std::collections::BTreeMap;
use std::path::PathBuf;

use spawnpoint_wire::strict::{camel, snake};

use super::error::{ConfigError, ErrorKind, Origin, nearest};
use super::keys::{Fallback, Key, LATER, Meta};
use super::value::{Node, Value};

/// Errors after which unknown keys are only named: a file with more is not mistyped but another kind of file, and a hint for each of
/// its keys (a comparison with every known one, and their list) takes seconds and a hundred times its size.
const MAX_ADVICE: usize = 100;

/// What the command line says, and where relative paths begin.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    values: BTreeMap<String, (String, String)>,
    /// Directory of the file; `None` without one.
    pub base_dir: Option<PathBuf>,
    /// Directory of the caller, for paths in flags and variables; they stay relative when `None`.
    pub caller_dir: Option<PathBuf>,
}

impl Overrides {
    /// No flags yet. `base_dir` is the directory of the file, if there is one; `caller_dir` the caller's.
    #[must_use]
    pub fn at(base_dir: Option<PathBuf>, caller_dir: Option<PathBuf>) -> Self {
        Self {
            values: BTreeMap::new(),
            base_dir,
            caller_dir,
        }
    }

    /// Sets a key (`server.port`, `fleet.spice.warm`, `queue.*.session_size` for all) as a flag would; `flag` is its spelling for errors and listings.
    pub fn set(&mut self, path: &str, flag: &str, value: impl Into<String>) {
        self.values
            .insert(path.to_owned(), (flag.to_owned(), value.into()));
    }
}

/// One setting as it holds, and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key (`server.port`, `fleet.spice.warm`).
    pub path: String,
    /// Its value as written; `(hidden)` for secrets.
    pub value: String,
    /// Who said so.
    pub origin: Origin,
}

/// A section's entries by their snake_case names; those of inner tables as `run.command`.
pub(super) struct Section {
    /// `server` or `fleet.spice`.
    pub(super) path: String,
    /// Prefixes of the variables that set its keys, the most particular first.
    env: Vec<String>,
    fields: BTreeMap<String, Node>,
}

pub(super) struct Reader<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) overrides: &'a Overrides,
    pub(super) errors: Vec<ConfigError>,
    pub(super) settings: Vec<Setting>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(env: &'a dyn Fn(&str) -> Option<String>, overrides: &'a Overrides) -> Self {
        Self {
            env,
            overrides,
            errors: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// A variable's value; set to nothing is not set.
    pub(super) fn env(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|v| !v.is_empty())
    }

    /// Opens a section: names in one spelling, unknown ones reported with the nearest known.
    pub(super) fn open(
        &mut self,
        path: &str,
        env: Vec<String>,
        pairs: &[(String, Node)],
        known: &[&Meta],
    ) -> Section {
        let mut section = Section {
            path: path.to_owned(),
            env,
            fields: BTreeMap::new(),
        };
        self.collect(&mut section, "", pairs, known);
        section
    }

    fn collect(
        &mut self,
        section: &mut Section,
        inner: &str,
        pairs: &[(String, Node)],
        known: &[&Meta],
    ) {
        for (written, node) in pairs {
            let name = format!("{inner}{}", snake(written));
            let table = format!("{name}.");
            if known.iter().any(|m| m.name.starts_with(&table)) {
                if let Value::Table(pairs) = &node.value {
                    self.collect(section, &table, pairs, known);
                } else {
                    let names: Vec<&str> = known
                        .iter()
                        .filter_map(|m| m.name.strip_prefix(&table))
                        .collect();
                    let problem = format!("must be a table of {}", names.join(", "));
                    self.error(
                        ErrorKind::Invalid,
                        &section.path,
                        &name,
                        Origin::File { line: node.line },
                        Some(node.value.shown()),
                        problem,
                    );
                }
                continue;
            }
            if !known.iter().any(|m| m.name == name) {
                self.unknown(&section.path, inner, written, node.line, known);
                continue;
            }
            match section.fields.get(&name) {
                Some(before) if before.value != node.value => {
                    let last = name.rsplit('.').next().unwrap_or(&name);
                    let problem = format!(
                        "{last:?} and {:?} are both given and differ: keep one",
                        camel(last)
                    );
                    self.error(
                        ErrorKind::Conflict,
                        &section.path,
                        &name,
                        Origin::File { line: node.line },
                        None,
                        problem,
                    );
                }
                _ => {
                    section.fields.insert(name, node.clone());
                }
            }
        }
    }

    fn unknown(&mut self, path: &str, inner: &str, written: &str, line: usize, known: &[&Meta]) {
        let name = snake(written);
        if let Some((_, sentence)) = LATER
            .iter()
            .find(|(later, _)| inner.is_empty() && *later == name)
        {
            self.error(
                ErrorKind::Unsupported,
                path,
                &name,
                Origin::File { line },
                None,
                (*sentence).to_owned(),
            );
            return;
        }
        let here: Vec<&str> = known
            .iter()
            .filter_map(|m| m.name.strip_prefix(inner))
            .map(|n| n.split('.').next().unwrap_or(n))
            .collect();
        let inside = known
            .iter()
            .find(|m| m.name.rsplit('.').next() == Some(name.as_str()));
        let advised = self.errors.len() < MAX_ADVICE;
        let near = advised.then(|| nearest(&name, here.iter().copied()));
        let problem = match (near.flatten(), inside) {
            _ if !advised => "is not a known key".to_owned(),
            (Some(n), _) => format!("is not a known key; did you mean {n:?}?"),
            (None, Some(m)) => format!("is not a known key here; did you mean {:?}?", m.name),
            (None, None) => {
                let mut names = here;
                names.dedup();
                format!("is not a known key; known are {}", names.join(", "))
            }
        };
        let shown: String = written.escape_debug().take(64).collect();
        self.error(
            ErrorKind::UnknownKey,
            path,
            &format!("{inner}{shown}"),
            Origin::File { line },
            None,
            problem,
        );
    }

    fn error(
        &mut self,
        kind: ErrorKind,
        section: &str,
        name: &str,
        origin: Origin,
        value: Option<String>,
        problem: String,
    ) {
        self.errors.push(ConfigError {
            kind,
            path: format!("{section}.{name}"),
            origin,
            value,
            problem,
        });
    }

    /// Complains of a value that is fine by itself and wrong beside others; shows it as it was read.
    pub(super) fn complain(
        &mut self,
        kind: ErrorKind,
        section: &Section,
        meta: &Meta,
        problem: impl Into<String>,
    ) {
        let path = format!("{}.{}", section.path, meta.name);
        let (value, origin) = match self.settings.iter().find(|s| s.path == path) {
            Some(s) => (Some(s.value.clone()), s.origin.clone()),
            None => (None, Origin::Default),
        };
        self.error(
            kind,
            &section.path,
            meta.name,
            origin,
            value,
            problem.into(),
        );
    }

    fn find(&self, section: &Section, meta: &Meta) -> Option<(Value, Origin)> {
        let path = format!("{}.{}", section.path, meta.name);
        // A flag for all queues (`queue.*.session_size`) stands behind one for a single queue.
        let all = section
            .path
            .split_once('.')
            .map(|(kind, _)| format!("{kind}.*.{}", meta.name));
        let said = |path: &String| self.overrides.values.get(path);
        if let Some((flag, value)) = said(&path).or_else(|| all.as_ref().and_then(said)) {
            return Some((Value::Loose(value.clone()), Origin::Flag(flag.clone())));
        }
        let suffix = meta.name.replace('.', "_").to_ascii_uppercase();
        let composed = section
            .env
            .iter()
            .map(|prefix| format!("{prefix}_{suffix}"));
        let own = meta.env.iter().map(|e| (*e).to_owned());
        for name in composed.chain(own) {
            if let Some(value) = self.env(&name) {
                return Some((Value::Loose(value), Origin::Env(name)));
            }
        }
        section
            .fields
            .get(meta.name)
            .map(|n| (n.value.clone(), Origin::File { line: n.line }))
    }

    /// Whether anybody said anything about a key.
    pub(super) fn given(&self, section: &Section, meta: &Meta) -> bool {
        self.find(section, meta).is_some()
    }

    /// The value that holds. `None` when there is none and no default, or when it is wrong (then the error is kept).
    pub(super) fn get<T>(&mut self, section: &Section, key: &Key<T>) -> Option<T> {
        let meta = &key.meta;
        let (value, origin) = match (self.find(section, meta), meta.fallback) {
            (Some(found), _) => found,
            (None, Fallback::Value(text)) => (Value::Loose(text.to_owned()), Origin::Default),
            (None, Fallback::Words(_)) => return None,
            (None, Fallback::Required) => {
                self.error(
                    ErrorKind::Missing,
                    &section.path,
                    meta.name,
                    Origin::Default,
                    None,
                    format!("is required: {}", meta.form),
                );
                return None;
            }
        };
        let shown = if meta.secret && origin != Origin::Default {
            "(hidden)".to_owned()
        } else {
            value.shown()
        };
        match (key.convert)(&value) {
            Ok(converted) => {
                self.note(section, meta, shown, origin);
                Some(converted)
            }
            Err(problem) => {
                let kind = if problem.contains("this release") {
                    ErrorKind::Unsupported
                } else {
                    ErrorKind::Invalid
                };
                let value = (!meta.secret).then_some(shown);
                self.error(kind, &section.path, meta.name, origin, value, problem);
                None
            }
        }
    }

    /// Keeps who said what, for `doctor`.
    pub(super) fn note(&mut self, section: &Section, meta: &Meta, value: String, origin: Origin) {
        self.settings.push(Setting {
            path: format!("{}.{}", section.path, meta.name),
            value,
            origin,
        });
    }

    /// A path as given, from where it was given: the file's directory, or the caller's for flags and variables.
    pub(super) fn place(&self, section: &Section, meta: &Meta, path: PathBuf) -> PathBuf {
        let base = match self.find(section, meta) {
            Some((_, Origin::File { .. })) => &self.overrides.base_dir,
            _ => &self.overrides.caller_dir,
        };
        match base {
            Some(base) if path.is_relative() => base.join(path),
            _ => path,
        }
    }
}
