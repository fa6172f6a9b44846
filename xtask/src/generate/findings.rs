//! The findings of `spawnpoint audit`, in `docs/reliability.md`.

use std::fmt::Write as _;

use spawnpoint_core::audit::Rule;

pub(super) fn table() -> String {
    let mut out = String::from("| code | what is wrong | what to do |\n|---|---|---|\n");
    for rule in Rule::ALL {
        let (code, about, advice) = (rule.as_str(), rule.about(), rule.advice());
        let _ = writeln!(out, "| `{code}` | {about} | {advice} |");
    }
    out
}
