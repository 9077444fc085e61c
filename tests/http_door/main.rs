//! # The HTTP door, knocked at by clients that mean well and by those that do not
//!
//! A simulated trace is taken to its end by the executable; `starling serve` then answers over bare sockets, so that what is sent is exactly what a
//! test says. `rights` holds the golden table: every role at every route. `ways` is about sessions and tokens, `tokens` about those of an identity
//! provider, which `provider` is, `certificates` about those of clients, which `authority` signs, `attacks` about what is too much, too slow or
//! nothing, `answers` about rows and words, `log` about the hash-chained log, `on_us` about whoever tries the doors, `document` about the OpenAPI document.
//!
//! The other door's client (psycopg) and schemathesis come from PyPI by `tests/accounting/python.sh`, in the versions of the two
//! `requirements.txt`. Where one of them is not to be had its test is reported as ignored, never as passed.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, dead_code)]

mod answers;
mod attacks;
mod authority;
mod certificates;
mod client;
mod document;
mod doors;
#[path = "../pg_door/house.rs"]
mod house;
mod log;
mod on_us;
mod provider;
mod rights;
#[path = "../journey/support.rs"]
mod support;
mod tokens;
mod ways;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use house::house;
use libtest_mimic::{Arguments, Trial};
use support::workspace;

/// The Python that has schemathesis, or why there is none.
pub(crate) fn schemathesis() -> Result<PathBuf, String> {
    let script = workspace().join("tests/accounting/python.sh");
    let output = Command::new("bash").arg(script).arg(workspace().join("tests/http_door/requirements.txt")).output();
    let output = output.map_err(|_| "skipped: no bash".to_owned())?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(PathBuf::from(answer)),
        Some(77) => Err(answer),
        _ => Err(format!("skipped: python.sh failed: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let (psycopg, schemathesis) = (house::python().map(|_| ()), schemathesis().map(|_| ()));
    for why in [&psycopg, &schemathesis].into_iter().filter_map(|found| found.as_ref().err()) {
        eprintln!("{why}");
    }
    macro_rules! trials {
        ($($module:ident::$name:ident needs $needs:expr),* $(,)?) => {
            vec![$(Trial::test(stringify!($name), || { $module::$name(house()); Ok(()) }).with_ignored_flag(!$needs)),*]
        };
    }
    let with_curl = certificates::curl_is_there();
    if let Err(why) = &with_curl {
        eprintln!("{why}");
    }
    let with_curl = with_curl.is_ok();
    let (both, made_up) = (psycopg.is_ok(), schemathesis.is_ok());
    let trials = trials!(
        rights::p32_p33_p34_p35_every_role_enters_the_rooms_its_row_of_the_table_names needs true,
        rights::everybody_is_told_who_it_is_and_what_it_may_see needs true,
        rights::a_step_is_taken_under_ones_own_name needs true,
        ways::a_session_is_made_by_a_login_and_by_nothing_else needs true,
        ways::a_wrong_password_and_an_unknown_name_look_the_same needs true,
        ways::a_session_ends_with_its_user needs true,
        ways::a_token_is_good_until_it_ends_or_is_revoked needs true,
        ways::no_command_on_users_undoes_another needs true,
        ways::a_cookie_counts_only_for_this_hosts_own_pages needs true,
        ways::without_users_only_this_machines_own_names_are_answered_to needs true,
        ways::beyond_loopback_there_is_tls_and_somebody_to_let_in_or_no_door needs true,
        tokens::p32_p33_a_token_of_the_provider_enters_what_its_role_enters_and_no_more needs true,
        tokens::what_is_no_token_of_the_provider_is_nobodys needs true,
        tokens::keys_are_turned_over_without_a_restart_and_a_provider_that_is_down_keeps_nobody_out needs true,
        tokens::keys_come_from_a_file_or_over_https_from_who_can_be_trusted needs true,
        tokens::a_stream_ends_with_the_token_that_opened_it needs true,
        tokens::p40_who_comes_with_a_token_stands_in_the_log_and_nothing_else_of_the_token_does needs true,
        tokens::with_a_provider_and_no_users_nobody_is_local needs true,
        certificates::a_certificate_lets_in_whose_it_is_and_nobody_else needs with_curl,
        certificates::where_a_certificate_is_required_nothing_is_said_without_one needs with_curl,
        attacks::what_is_too_long_is_refused_and_others_are_served needs true,
        attacks::who_is_slow_or_silent_is_let_go_and_holds_nobody needs true,
        attacks::a_statement_ends_when_its_client_goes_and_when_its_time_is_up needs true,
        attacks::who_asks_or_follows_hears_that_the_server_stops needs true,
        attacks::a_stream_ends_with_the_session_it_was_opened_with needs true,
        attacks::the_console_is_its_files_and_nothing_else needs true,
        attacks::a_login_that_waits_keeps_no_statement_waiting needs true,
        answers::rows_are_those_of_starling_sql_in_every_shape needs true,
        answers::a_private_question_is_charged_to_the_team_told_and_free_when_asked_again needs true,
        answers::both_doors_give_the_same_code_reason_and_hint needs both,
        answers::sql_errors_say_where_and_never_what needs true,
        answers::what_the_house_tells_of_itself_is_what_its_commands_tell needs true,
        log::p40_i6_logins_statements_and_reads_are_in_the_log_before_anything_is_served needs true,
        log::i6_without_a_log_nothing_is_served needs true,
        log::i6_a_stream_ends_where_the_log_cannot_be_written needs true,
        log::i4_no_log_holds_a_password_a_token_a_cookie_or_what_was_asked needs true,
        on_us::p28_who_tries_the_doors_is_told_of_and_works_on_no_alert_about_himself needs true,
        document::every_answer_has_the_shape_that_the_document_says needs true,
        document::what_is_made_up_from_the_document_is_answered_as_it_says needs made_up,
    );
    libtest_mimic::run(&arguments, trials).exit_code()
}
