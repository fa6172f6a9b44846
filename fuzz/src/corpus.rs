//! The committed inputs: where they are, how many there may be, and what a replay makes of each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Target;

/// Most files of one target: a replay must stay a matter of seconds, and a clone small.
pub const MAX_FILES: usize = 100;
/// Most bytes of one target's files together.
pub const MAX_BYTES: usize = 200 * 1024;
/// Variations of the committed inputs that a replay tries besides.
const VARIATIONS: usize = 400;

/// The folder of a target.
#[must_use]
pub fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name)
}

/// The inputs of a target with their file names, in order.
///
/// # Errors
/// When the folder cannot be read.
pub fn inputs(target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(target))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        found.push((name, fs::read(entry.path())?));
    }
    found.sort();
    Ok(found)
}

/// The inputs and a fixed number of variations of them: cut off, and with one bit changed. Always the same ones.
pub fn variations(inputs: &[(String, Vec<u8>)]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let each = VARIATIONS / inputs.len().max(1);
    inputs.iter().flat_map(move |(name, bytes)| {
        let mut chance = bytes.len() as u64 ^ 0x9e37_79b9_7f4a_7c15;
        let whole = std::iter::once((name.clone(), bytes.clone()));
        let others = (0..each).filter(|_| !bytes.is_empty()).map(move |n| {
            // Knuth's MMIX generator: good enough to choose a place.
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let place = usize::try_from(chance >> 33).unwrap_or(0);
            let at = place % bytes.len();
            let mut other = bytes.clone();
            if n % 2 == 0 {
                other.truncate(at);
                (format!("{name}, cut at {at}"), other)
            } else {
                let bit = place / bytes.len() % 8;
                if let Some(byte) = other.get_mut(at) {
                    *byte ^= 1 << bit;
                }
                (format!("{name}, bit {bit} of byte {at} changed"), other)
            }
        });
        whole.chain(others)
    })
}
