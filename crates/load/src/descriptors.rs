//! Open files: counted before anything is dialled, because a run that dies of them in its middle has measured nothing.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::fault::LoadError;

/// Each client has a connection to the API and one to its game.
const EACH: u64 = 2;
/// Standard streams, the executor's own, the report, name lookups, the check of records.
const SPARE: u64 = 64;

/// What so many clients need.
pub(crate) const fn needed(clients: usize) -> u64 {
    clients as u64 * EACH + SPARE
}

/// Raises the soft limit as far as is needed and allowed.
///
/// # Errors
/// [`LoadError::Descriptors`] when the hard limit is too low.
pub(crate) fn ensure(clients: usize) -> Result<(), LoadError> {
    let needed = needed(clients);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|soft| soft >= needed) {
        return Ok(());
    }
    let mut raised = limit;
    raised.current = Some(limit.maximum.map_or(needed, |hard| hard.min(needed)));
    let _ = setrlimit(Resource::Nofile, raised);
    match getrlimit(Resource::Nofile).current {
        Some(allowed) if allowed < needed => Err(LoadError::Descriptors {
            clients,
            needed,
            allowed,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_said_with_advice() {
        assert_eq!(needed(5000), 10_064);
        assert!(ensure(1).is_ok());
        let Some(hard) = getrlimit(Resource::Nofile).maximum else {
            return;
        };
        let too_many = usize::try_from(hard).unwrap();
        let error = ensure(too_many).unwrap_err().to_string();
        assert!(error.contains("ulimit -n"), "{error}");
    }
}
