//! Each target with its committed inputs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use spawnpoint_fuzz::corpus::{inputs, variations};
use spawnpoint_fuzz::{TARGETS, target};

fn replay(name: &str) {
    let target = target(name).unwrap_or_else(|| panic!("there is no target {name}"));
    let inputs = inputs(target).unwrap();
    assert!(!inputs.is_empty(), "{name} has no inputs");
    let mut tried = 0;
    for (which, input) in variations(&inputs) {
        tried += 1;
        if catch_unwind(AssertUnwindSafe(|| target.run(&input))).is_err() {
            panic!(
                "{name}: {which}: {:?}",
                String::from_utf8_lossy(&input[..input.len().min(2000)])
            );
        }
    }
    assert!(tried >= inputs.len());
}

macro_rules! replayed {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            let all: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
            assert_eq!(all, replayed);
        }
    };
}

replayed!(
    request_body,
    join_token,
    hosts_and_origins,
    ids,
    stored_claim,
    link_messages,
    frames,
    token_line,
    proxy_header,
    game_request,
    game_answer,
    config_file,
    config_units,
    query_string,
    page_cursor,
    instance_record,
    run_pages,
    process_stat,
    decision_log,
    arena_lines,
    arena_proxy,
    arena_token,
    spice_message,
    spice_head,
    session_file,
);
