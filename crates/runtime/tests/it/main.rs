//! The runtimes against real processes and sockets.

mod process;
mod simulated;
