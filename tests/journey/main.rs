//! # tests: whole journeys, with the executable that users run
//!
//! ```text
//!  architecture  the arrows between crates, and what each may name                     design 2
//!  trace         simulate → run --trace → sql, alerts: the main job end to end         I1 I3
//!  crash         the same, killed at every named point                                 I9 I2 I3
//!  leaks         canaries in every slot, searched for in everything that is left       I4 I5
//!  bad_input     what no producer should send                                          I1 I8
//!  commands      help, refusals and errors as people read them (snapshots)
//!  http          the alert stream                                                      I6
//! ```
//!
//! Beside it `tests/real_kafka`: a real broker; two ingest processes, one killed (I9, I1).

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod architecture;
mod bad_input;
mod commands;
mod crash;
mod http;
mod leaks;
mod support;
mod trace;
