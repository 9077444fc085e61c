//! # The Flight SQL door, knocked at by clients that mean well and by those that do not
//!
//! A simulated trace is taken to its end by the executable; `starling serve` then answers arrow-flight's own client, each call of
//! which is made as whoever a test says, and ADBC, as a notebook has it. `calls` is about who a call is from and what a ticket is
//! worth, `tokens` about those of an identity provider and client certificates, `answers` about rows, words, prices and parameters, `ends` about limits, cancelling, stopping and TLS, `log` about the
//! hash-chained log, `adbc` about the Python driver.
//!
//! ADBC comes from PyPI by `tests/accounting/python.sh`, in the versions of `requirements.txt`. Where it is not to be had its
//! tests are reported as ignored, never as passed.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, dead_code)]

mod adbc;
mod answers;
#[path = "../http_door/authority.rs"]
mod authority;
mod calls;
mod client;
#[path = "../http_door/doors.rs"]
mod doors;
mod ends;
#[path = "../pg_door/house.rs"]
mod house;
#[path = "../http_door/client.rs"]
mod http_client;
mod log;
#[path = "../http_door/provider.rs"]
mod provider;
#[path = "../journey/support.rs"]
mod support;
mod tokens;

use std::process::ExitCode;

use house::house;
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let python = client::python();
    if let Err(why) = &python {
        eprintln!("{why}");
    }
    macro_rules! trials {
        ($($module:ident::$name:ident needs $needs:expr),* $(,)?) => {
            vec![$(Trial::test(stringify!($name), || { $module::$name(house()); Ok(()) }).with_ignored_flag(!$needs)),*]
        };
    }
    let driver = python.is_ok();
    let trials = trials!(
        calls::nobody_is_answered_whatever_it_calls needs true,
        calls::every_call_is_authorised_anew needs true,
        calls::a_head_is_worth_nothing_once_its_token_is_revoked needs true,
        calls::a_session_of_a_login_ends_with_its_user needs true,
        calls::a_wrong_password_and_an_unknown_name_look_the_same needs true,
        calls::a_ticket_is_its_users_own_and_lends_no_right needs true,
        calls::plans_updates_and_transactions_are_refused_by_name needs true,
        tokens::p32_a_token_of_the_provider_is_looked_at_at_each_call needs true,
        tokens::without_users_a_provider_lets_in_and_nobody_else_does needs true,
        tokens::a_certificate_makes_calls_its_users_and_nobody_elses needs true,
        answers::rows_and_columns_are_those_of_starling_sql needs true,
        answers::refused_statements_are_refused_alike_at_every_door needs true,
        answers::a_private_question_is_charged_once_when_its_ticket_is_redeemed needs true,
        answers::values_are_bound_as_literals_and_priced_as_such needs true,
        answers::p32_a_role_sees_what_it_may_read_and_no_trace_of_the_rest needs true,
        ends::a_statement_ends_when_it_is_cancelled_and_when_its_client_goes needs true,
        ends::who_asks_hears_that_the_server_stops needs true,
        ends::what_is_too_long_or_too_much_is_refused_and_others_are_served needs true,
        ends::who_takes_nothing_is_let_go_and_holds_nobody needs true,
        ends::who_is_nobody_is_let_go needs true,
        ends::beyond_loopback_there_is_tls_or_no_door needs true,
        log::p40_i6_calls_are_in_the_log_before_anything_is_served needs true,
        log::i6_without_a_log_nothing_is_served needs true,
        log::i4_no_log_holds_a_password_a_token_or_what_was_asked needs true,
        adbc::a_notebook_has_rows_columns_and_parameters needs driver,
        adbc::a_notebook_looks_around_and_hears_what_is_not_done_here needs driver,
        adbc::a_notebook_logs_in_by_password_token_and_under_tls needs driver,
    );
    libtest_mimic::run(&arguments, trials).exit_code()
}
