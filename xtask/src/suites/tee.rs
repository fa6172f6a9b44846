//! Runs a command so that its output is seen as it comes and kept for reading.

use std::io::{self, BufRead as _, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// Lines that wait to be shown: enough for a burst, and a terminal that stands still stops the command as it would without us.
const WAITING_LINES: usize = 1_000;

/// How long after the command's end its last words may take. Not for ever: something that it left behind may hold its output open.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Both streams go through one pipe, because what a runner says of a binary (stderr) must stay before what that says (stdout).
pub(super) fn run(
    command: &mut Command,
    show: &mut impl Write,
) -> io::Result<(ExitStatus, String)> {
    let (reader, writer) = io::pipe()?;
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // The command keeps its copies of the writing end until they are replaced; with them the pipe would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (lines, shown) = sync_channel(WAITING_LINES);
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            if lines.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    });
    let mut kept = String::new();
    loop {
        match shown.recv_timeout(LAST_WORDS) {
            Ok(line) => {
                show.write_all(&line)?;
                kept.push_str(&String::from_utf8_lossy(&line));
            }
            Err(RecvTimeoutError::Disconnected) => return Ok((child.wait()?, kept)),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = child.try_wait()? {
                    return Ok((status, kept));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_are_kept_in_their_order() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo one; echo two >&2; printf three; exit 3"]);
        let mut shown = Vec::new();
        let (status, kept) = run(&mut shell, &mut shown).unwrap();
        assert_eq!(kept, "one\ntwo\nthree");
        assert_eq!(shown, kept.as_bytes());
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn what_a_command_leaves_behind_is_not_waited_for() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 600 & echo $!"]);
        let (status, kept) = run(&mut shell, &mut Vec::new()).unwrap();
        assert!(status.success());
        let left: u32 = kept.trim().parse().unwrap();
        let killed = Command::new("kill").arg(left.to_string()).status().unwrap();
        assert!(killed.success(), "it was still there");
    }
}
