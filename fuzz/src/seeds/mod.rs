//! Real examples of everything that is parsed: where the search for inputs begins. Written to `fuzz/corpus` as `seed-*` by
//! `SPAWNPOINT_REWRITE=1 cargo test -p spawnpoint-fuzz seeds`.

pub(crate) mod claims;
pub(crate) mod config;
pub(crate) mod games;
pub(crate) mod gateway;
pub(crate) mod journal;
pub(crate) mod requests;
pub(crate) mod tokens;

/// Inputs by name.
pub(crate) type Seeds = Vec<(&'static str, Vec<u8>)>;

/// Texts as inputs.
fn texts(named: &[(&'static str, &str)]) -> Seeds {
    let all = named
        .iter()
        .map(|(name, text)| (*name, text.as_bytes().to_vec()));
    all.collect()
}

/// A session's id.
const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
