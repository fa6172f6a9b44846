//! What ships cannot be told to die: fault points and their switches are in builds for the kill matrix only.
#![cfg(not(feature = "faults"))]

use crate::world::{World, eventually, spice};

#[test]
fn the_command_has_no_fault_switch_and_passes_every_point_unharmed() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_spawnpoint")).unwrap();
    let name = b"SPAWNPOINT_FAULT";
    assert!(
        !program.windows(name.len()).any(|w| w == name),
        "the switch is in the program"
    );
    let w = World::new(&format!(
        "[[fleet]]\nname = \"spice\"\nrun = {{ command = [{:?}] }}\n",
        spice().display().to_string()
    ));
    // Were it read, the start itself would be deadly.
    let passes = w.dir.path().join("passes");
    let up = crate::world::Up::start_with(
        &w,
        &["up", "--output", "json"],
        &[
            ("SPAWNPOINT_FAULT", "revive.listed"),
            ("SPAWNPOINT_FAULT_PASSES", passes.to_str().unwrap()),
        ],
    );
    let id = up.new_game("alice")["session_id"]
        .as_str()
        .unwrap()
        .to_owned();
    up.ask(&["sessions", "end", &id]).fine();
    eventually("the record", || {
        (up.ask(&["matches", "get", &id]).code == Some(0)).then_some(())
    });
    assert!(!passes.exists());
}
