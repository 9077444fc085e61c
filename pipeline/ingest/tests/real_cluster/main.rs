//! Clusters as they are run: with TLS, passwords, certificates and access rules; with every compression; and through what brokers and
//! networks do: restarts, leaders that move, connections that are cut, stalled and reset.
//!
//! `tests/kafka/start.sh` starts the brokers, once for all tests of a kind. Those of one kind run one after the other, because most of them break
//! something; the two kinds run side by side, because most of the time is spent waiting. Where Java, Maven or OpenSSL is missing they are reported as ignored, never as passed.

#![allow(missing_docs)]

mod acl;
mod brokers;
#[path = "../common/mod.rs"]
mod common;
mod compression;
mod faults;
mod proxy;
mod security;

use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};

use libtest_mimic::{Arguments, Trial};

/// Of the tests that log in, and of those that break what they have.
static TURNS: [Mutex<()>; 2] = [const { Mutex::new(()) }; 2];

fn main() -> ExitCode {
    let missing = [("java", "-version"), ("mvn", "-version"), ("openssl", "version"), ("bash", "--version")]
        .into_iter()
        .find(|(tool, argument)| Command::new(tool).arg(argument).output().is_err());
    if let Some((tool, _)) = missing {
        eprintln!("skipped: {tool} is not installed, so no Kafka can be started");
    }
    let mut trials = Vec::new();
    macro_rules! trials {
        ($($room:ident::$name:ident),* $(,)?) => {$(
            trials.push(Trial::test(stringify!($name), || {
                let _turn = TURNS[usize::from(stringify!($room) == "faults")].lock().unwrap_or_else(PoisonError::into_inner);
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on($room::$name());
                Ok(())
            }).with_ignored_flag(missing.is_some()));
        )*};
    }
    trials!(
        security::i9_a_topic_is_taken_over_tls_with_scram,
        security::i9_a_topic_is_taken_over_tls_with_a_client_certificate,
        security::i8_whoever_is_refused_stops_and_is_told_why,
        security::i8_what_does_not_answer_is_told_from_what_is_not_there,
        security::a_reader_without_a_group_needs_no_rule_for_one,
        security::a_producer_that_is_refused_is_told_why,
        compression::every_compression_gives_the_same_events,
        faults::i8_a_connection_that_ends_within_its_handshakes_is_no_refusal,
        faults::i9_a_network_that_is_cut_stalled_and_reset_leaves_no_gap_and_no_duplicate,
        faults::i9_a_broker_that_is_stopped_and_killed_leaves_no_gap_and_no_duplicate,
        faults::i9_leaders_that_move_leave_no_gap_and_no_duplicate,
    );
    let mut arguments = Arguments::from_args();
    // All but two wait for the turn of their kind.
    arguments.test_threads = Some(trials.len());
    let conclusion = libtest_mimic::run(&arguments, trials);
    brokers::stop_all();
    conclusion.exit_code()
}
