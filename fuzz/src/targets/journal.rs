//! The log of decisions, as `spawnpoint replay` finds it: after years, from another release, or changed by somebody.

use spawnpoint_server::journal::{Difference, DifferenceKind, Replay, Replayed};
use spawnpoint_wire::journal::{Line, Numbered, seal};

/// What ends a line: the check sum and its field. Whoever changes a line can make it anew.
const TAIL: usize = ",\"sum\":\"0123456789abcdef\"}".len();

pub(super) fn decisions(bytes: &[u8]) {
    log(bytes);
    let sealed = resealed(bytes);
    log(&sealed);
    changed(&sealed);
}

/// The same lines, each with the check sum that belongs to it.
fn resealed(bytes: &[u8]) -> Vec<u8> {
    let lines = bytes.split(|b| *b == b'\n').map(|line| {
        let body = match line.len().checked_sub(TAIL) {
            Some(at) if line[at..].starts_with(b",\"sum\":\"") => &line[..at],
            _ => line.strip_suffix(b"}").unwrap_or(line),
        };
        let text = String::from_utf8_lossy(body);
        seal(format!("{text}}}")).into_bytes()
    });
    lines.collect::<Vec<_>>().join(&b'\n')
}

fn log(bytes: &[u8]) {
    for line in bytes.split(|b| *b == b'\n') {
        if let Ok(said) = Numbered::read(line) {
            let written = said.write();
            let again = Numbered::read(written.as_bytes());
            assert_eq!(again.ok().as_ref(), Some(&said), "{written}");
        }
    }
    let out = replay(bytes);
    assert_eq!(out, replay(bytes), "the same log, replayed twice");
    let at_most = bytes.split(|b| *b == b'\n').count() as u64;
    assert!(out.lines + out.torn <= at_most, "{out:?}");
    let decided = out.functions.iter();
    let decided: u64 = decided
        .map(|f| f.same + f.different + f.too_large + f.unknown)
        .sum();
    assert!(decided <= out.lines, "{out:?}");
    let different: u64 = out.functions.iter().map(|f| f.different).sum();
    let named = out.differences.len() as u64 + out.left_out;
    assert!(named >= different, "{out:?}");
    assert_eq!(out.same, named == 0, "{out:?}");
    // Who looks at one session is told of nothing else.
    for line in bytes.split(|b| *b == b'\n').take(2) {
        if let Ok(Numbered {
            line: Line::Step(step),
            ..
        }) = Numbered::read(line)
        {
            let mut told = 0;
            let mut one = Replay::of(step.session, |s| {
                assert_eq!(s.session, step.session);
                told += 1;
            });
            assert!(one.file("log", bytes, |_| ()).is_ok());
            let one = one.finish();
            let steps: u64 = one
                .functions
                .iter()
                .map(|f| f.same + f.different + f.unknown)
                .sum();
            assert_eq!(told, steps);
        }
    }
}

fn replay(bytes: &[u8]) -> Replayed {
    let mut replay = Replay::new();
    let mut read = 0;
    let done = replay.file("log", bytes, |n| read += n);
    assert!(done.is_ok(), "bytes in memory can be read");
    assert_eq!(read, bytes.len() as u64);
    replay.finish()
}

/// A bit that is changed in a line that was as it was written is said to be a change of that line, and no function is blamed for what
/// this line says now.
fn changed(bytes: &[u8]) {
    let before = replay(bytes);
    let whole = bytes.split(|b| *b == b'\n').enumerate();
    let found = whole
        .into_iter()
        .find(|(_, line)| Numbered::read(line).is_ok());
    let Some((n, line)) = found else {
        return;
    };
    let starts = line.as_ptr() as usize - bytes.as_ptr() as usize;
    let at = starts + (bytes.len() * 31) % line.len();
    let mut other = bytes.to_vec();
    other[at] ^= 1 << (bytes.len() % 8);
    if other[at] == b'\n' || (n as u64) + 1 == bytes.split(|b| *b == b'\n').count() as u64 {
        // Two lines then; or the last one, which is torn.
        return;
    }
    let after = replay(&other);
    let number = n as u64 + 1;
    let blames = |d: &&Difference| d.line == number;
    let said: Vec<_> = after.differences.iter().filter(blames).collect();
    let room = after.left_out == 0 && before.left_out == 0;
    assert!(!after.same, "{after:?}");
    if room {
        assert!(
            said.iter().all(|d| d.kind == DifferenceKind::Changed) && said.len() == 1,
            "{said:?}"
        );
    }
}
