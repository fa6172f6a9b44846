//! The gateway with real sockets: real clients, small real games, a scripted control plane.

mod backpressure;
mod closing;
mod games;
mod handshake;
mod harness;
mod link;
mod progress;
mod relay;
mod reports;
