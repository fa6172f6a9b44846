//! The gateway with real sockets: real clients, small real games, a scripted control plane.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod audit;
mod backpressure;
mod closing;
mod games;
mod handshake;
mod harness;
mod http_game;
mod http_host;
mod http_hostile;
mod link;
mod progress;
mod refusals;
mod relay;
mod reports;
mod tcp;
mod tcp_tokens;
