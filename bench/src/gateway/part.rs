//! The processes that are measured or stand behind what is measured, each one apart: this program again, in a mode of its own.
//!
//! A part reads one JSON object a line and answers each with one; it ends when its input does, so nothing is left behind however the
//! benchmark ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use serde_json::Value;

use super::{echo, role};
use crate::stopwatch::Mark;

/// A part that does not end by itself in this time is killed.
const ENDS: Duration = Duration::from_secs(15);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Modes of this program that others of its processes start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub(crate) enum Part {
    /// Says back whatever it hears, on as many ports as asked for.
    Echo,
    /// The real gateway, with routes handed out by the benchmark.
    Gateway,
}

impl Part {
    /// Runs as this part until the input ends.
    pub(crate) fn run(self) -> Result<()> {
        super::raise_descriptor_limit()?;
        let mut questions = BufReader::new(std::io::stdin()).lines();
        let first = questions.next().context("nothing to do")??;
        let first: Value = serde_json::from_str(&first)?;
        let questions = questions.map(|line| Ok(serde_json::from_str(&line?)?));
        match self {
            Self::Echo => echo::serve(&first, questions),
            Self::Gateway => role::serve(&first, questions),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Gateway => "gateway",
        }
    }
}

/// Answers the question before.
pub(super) fn answer(answer: &Value) -> Result<()> {
    crate::say(&answer.to_string())
}

/// A running part. Dropping it ends it.
pub(super) struct Running {
    part: Part,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Running {
    /// Starts a part with its orders; its first answer.
    pub(super) fn start(part: Part, orders: &Value) -> Result<(Self, Value)> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["part", part.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the part {:?}", part.name()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("no output of a part")?;
        let mut running = Self {
            part,
            child,
            input,
            output: BufReader::new(output),
        };
        let first = running.ask(orders)?;
        Ok((running, first))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn ask(&mut self, question: &Value) -> Result<Value> {
        let input = self.input.as_mut().context("the part is ending")?;
        writeln!(input, "{question}")?;
        let mut line = String::new();
        let heard = self.output.read_line(&mut line)?;
        if heard == 0 {
            let status = self.child.wait()?;
            bail!("the part {:?} ended with {status}", self.part.name());
        }
        let answer: Value = serde_json::from_str(&line)?;
        ensure!(answer["error"].is_null(), "{}", answer["error"]);
        Ok(answer)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.input.take());
        let began = Mark::now();
        while began.elapsed() < ENDS {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
