//! # tests: whole journeys, with the executable that users run
//!
//! ```text
//!  architecture  the arrows between crates, and what each may name                     design 2
//!  trace         simulate → run --trace → sql, alerts: the main job end to end         I1 I3
//!  weeks         nine days of it: who was there in a week, and nothing else of them      I1 I3
//!  hours         two days of it with hours: who was there in each, and what is left   I1 I2 I3 I7 I9
//!  crash         the same, killed at every named point                                 I9 I2 I3
//!  io_faults     the same, with each write, read and transaction failing            I9 I1 I2 I3
//!  metastore_faults  a metastore that is held, overwritten or gone                    I1 I2 I8 I9
//!  leaks         canaries in every slot, searched for in everything that is left       I4 I5
//!  secrets       passwords of Kafka, in each place that they may come from             I4
//!  billing       what businesses are billed for, exactly, and kept apart              I6 I9
//!  businesses    what businesses say of themselves, as they said it last                I6 I7 I9
//!  bad_input     what no producer should send                                          I1 I8
//!  evolution     producers of yesterday's and tomorrow's schema beside today's         I1 I4
//!  commands      help, refusals and errors as people read them (snapshots)
//!  http          the alert stream                                                      I6
//!  standing      who is told of what rules find; verdicts against promises           I6 I9
//!  receivers     webhooks that fail, hang, lie or are gone; a sender that is killed  I6 I9
//!  pairs         who writes slowly to many strangers, and what is left of who wrote to whom   I5 I7 I9
//!  groups        groups on an operator's list, and who creates them by the dozen; lists that change meanwhile   I4 I9
//!  rules         rules of one's own: checked, in force, told or not, tried on the last days   I6
//!  on_us         events that are played again, broken or made up; an ordinary week    P28 I9
//!  doctor        what is wrong with a data directory is found                           I6
//!  operation     metrics, health, status, quarantine, and how a process ends           I1 I4 I9
//! ```
//!
//! Beside it `tests/real_kafka`: a real broker; two ingest processes, one killed (I9, I1); and `tests/real_postgres`: the journey and the crashes
//! with the metastore on a real PostgreSQL, which itself is stopped and killed.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod architecture;
mod bad_input;
mod billing;
mod businesses;
mod commands;
mod crash;
mod desk;
mod doctor;
mod evaluate;
mod evolution;
mod groups;
mod hours;
mod http;
mod io_faults;
mod leaks;
mod metastore_faults;
mod on_us;
mod operation;
mod pairs;
mod receivers;
mod rules;
mod secrets;
mod service;
mod standing;
mod support;
mod trace;
mod weeks;
