//! What a simulated game does: said by its template, as a real one's behaviour is its program.

use std::collections::BTreeMap;
use std::time::Duration;

use spawnpoint_core::Moment;
use spawnpoint_core::session::Exit;

use crate::{Protocol, ReadyRule, Template};

/// The program that names a simulated game.
const PROGRAM: &str = "simulated";

/// A length of time, fixed or drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Always this.
    Fixed(Duration),
    /// Anything from the first to the second, evenly.
    Between(Duration, Duration),
}

impl Span {
    /// The length for one draw of a random number.
    #[must_use]
    pub fn pick(self, draw: u64) -> Duration {
        match self {
            Self::Fixed(d) => d,
            Self::Between(from, to) => {
                let width = u64::try_from(to.saturating_sub(from).as_micros()).unwrap_or(u64::MAX);
                from + Duration::from_micros(draw % width.saturating_add(1))
            }
        }
    }
}

/// How a simulated game ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exits with this code.
    Code(i32),
    /// This signal kills it.
    Signal(i32),
    /// The memory limit kills it.
    Oom,
    /// The program cannot be started at all.
    NeverRan,
}

impl End {
    /// As the exit it is.
    #[must_use]
    pub fn exit(self, at: Moment) -> Exit {
        let plain = Exit {
            code: None,
            signal: None,
            oom: false,
            never_ran: false,
            lost: false,
            at,
        };
        match self {
            Self::Code(code) => Exit::with_code(code, at),
            Self::Signal(signal) => Exit {
                signal: Some(signal),
                ..plain
            },
            Self::Oom => Exit {
                signal: Some(9),
                oom: true,
                ..plain
            },
            Self::NeverRan => Exit {
                never_ran: true,
                ..plain
            },
        }
    }
}

/// What one simulated game does. `None` leaves it to the runtime's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// From the start of its process to accepting.
    pub boot: Option<Duration>,
    /// It never accepts.
    pub never_ready: bool,
    /// Written to its log when it starts, one line each.
    pub lines: Vec<String>,
    /// Left in its results file when it ends by itself.
    pub results: Option<String>,
    /// It ends by itself this long after its start, so.
    pub ends: Option<(Duration, End)>,
    /// It does not heed SIGTERM: the grace runs out and SIGKILL ends it.
    pub ignores_term: bool,
}

impl Script {
    /// A template that behaves so, ready by `rule`.
    #[must_use]
    pub fn template(&self, rule: ReadyRule) -> Template {
        Template {
            command: self.command(),
            env: BTreeMap::new(),
            inherit_env: false,
            workdir: None,
            cpu_millis: None,
            memory_bytes: None,
            protocol: Protocol::Tcp,
            ready: rule,
            fixed_port: None,
            host_port: false,
        }
    }

    /// The command line that says so.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        let mut words = vec![PROGRAM.to_owned()];
        if let Some(boot) = self.boot {
            words.push(format!("boot={}", boot.as_micros()));
        }
        if self.never_ready {
            words.push("never_ready".to_owned());
        }
        words.extend(self.lines.iter().map(|l| format!("line={l}")));
        words.extend(self.results.iter().map(|r| format!("results={r}")));
        if let Some((after, end)) = self.ends {
            words.push(format!("after={}", after.as_micros()));
            words.push(match end {
                End::Code(code) => format!("code={code}"),
                End::Signal(signal) => format!("signal={signal}"),
                End::Oom => "oom".to_owned(),
                End::NeverRan => "never_ran".to_owned(),
            });
        }
        if self.ignores_term {
            words.push("ignores_term".to_owned());
        }
        words
    }

    /// What a command line says. A program that is not simulated (a real fleet under planning) behaves by the configuration.
    #[must_use]
    pub fn parse(command: &[String]) -> Self {
        let mut script = Self::default();
        let Some((PROGRAM, words)) = command.split_first().map(|(p, w)| (p.as_str(), w)) else {
            return script;
        };
        let micros = |v: &str| Some(Duration::from_micros(v.parse().ok()?));
        let mut after = Duration::ZERO;
        let mut end = None;
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "boot" => script.boot = micros(value),
                "never_ready" => script.never_ready = true,
                "line" => script.lines.push(value.to_owned()),
                "results" => script.results = Some(value.to_owned()),
                "after" => after = micros(value).unwrap_or_default(),
                "code" => end = value.parse().ok().map(End::Code),
                "signal" => end = value.parse().ok().map(End::Signal),
                "oom" => end = Some(End::Oom),
                "never_ran" => end = Some(End::NeverRan),
                "ignores_term" => script.ignores_term = true,
                _ => {}
            }
        }
        script.ends = end.map(|end| (after, end));
        script
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends() -> impl Strategy<Value = End> {
        prop_oneof![
            any::<i32>().prop_map(End::Code),
            any::<i32>().prop_map(End::Signal),
            Just(End::Oom),
            Just(End::NeverRan)
        ]
    }

    proptest! {
        #[test]
        fn a_script_survives_its_command_line(
            boot in prop::option::of(0..10_000_000u64),
            flags: (bool, bool),
            lines in prop::collection::vec(".*", 0..3),
            results in prop::option::of(".*"),
            ends in prop::option::of((0..10_000_000u64, ends())),
        ) {
            let script = Script {
                boot: boot.map(Duration::from_micros),
                never_ready: flags.0,
                lines,
                results,
                ends: ends.map(|(after, end)| (Duration::from_micros(after), end)),
                ignores_term: flags.1,
            };
            prop_assert_eq!(Script::parse(&script.command()), script);
        }

        #[test]
        fn a_span_stays_within_its_bounds(a in 0..1_000_000u64, b in 0..1_000_000u64, draw: u64) {
            let (from, to) = (Duration::from_micros(a.min(b)), Duration::from_micros(a.max(b)));
            let d = Span::Between(from, to).pick(draw);
            prop_assert!(from <= d && d <= to);
        }
    }

    #[test]
    fn a_real_program_is_left_to_the_configuration() {
        let command = ["./server".to_owned(), "code=3".to_owned()];
        assert_eq!(Script::parse(&command), Script::default());
        assert_eq!(Script::parse(&[]), Script::default());
    }
}
