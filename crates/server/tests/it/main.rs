//! The server role over a simulated runtime and real stores: what callers and gateways see.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test that fails should say where"
)]

mod audit;
mod away;
mod contract;
mod crowds;
mod durations;
mod faults;
mod harness;
mod joining;
mod journal;
mod journal_disk;
mod lifecycle;
mod matches;
mod matching;
mod matching_faults;
mod names;
mod openapi;
mod promises;
mod restart;
mod starting;
mod streams;
mod tcp;
mod web;
