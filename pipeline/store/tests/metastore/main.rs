//! # The metastore, on each of its databases
//!
//! Every test of the modules named in `on_both!` runs twice: on SQLite, in a file of its own, and on a real PostgreSQL, in a
//! database of its own. `postgres` holds what only a server can do. Where no server is installed these are reported as ignored, never
//! as passed; Rust's own harness cannot say that while it runs, hence `libtest-mimic`.

#![allow(missing_docs)]

mod accounts;
mod books;
mod businesses;
mod crowd;
mod deliveries;
mod kept;
mod ledger;
mod ledger_crowd;
mod opening;
mod operations;
mod postgres;
mod protocol;
mod proxy;
#[path = "../../../../tests/postgres/server.rs"]
mod server;
mod standing;
mod support;
mod topics;
mod work;

use std::future::Future;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use support::{Kind, Place};

fn run(test: impl Future<Output = ()>) -> Result<(), Failed> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?.block_on(test);
    Ok(())
}

fn main() -> ExitCode {
    // This executable, started by a test of its own as a process that asks the ledger.
    if let Some(job) = ledger_crowd::job() {
        return job;
    }
    let missing = server::missing();
    if let Some(why) = &missing {
        eprintln!("{why}");
    }
    let no_server = missing.is_some();
    let mut trials = Vec::new();
    macro_rules! on_both {
        ($($module:ident::$name:ident),* $(,)?) => {$(
            for (kind, label) in [(Kind::Sqlite, "sqlite"), (Kind::Postgres, "postgres")] {
                let name = format!(concat!("{}::", stringify!($module), "::", stringify!($name)), label);
                trials.push(
                    Trial::test(name, move || run($module::$name(Place::new(kind))))
                        .with_ignored_flag(no_server && kind == Kind::Postgres),
                );
            }
        )*};
    }
    on_both!(
        protocol::i1_i9_the_database_follows_the_protocol_under_any_order_of_owners_crashes_zombies_and_replays,
        protocol::a_crash_between_plan_and_commit_gives_the_next_owner_the_same_range_and_the_zombie_nothing,
        books::i1_counts_of_every_outcome_come_back_and_a_balance_broken_by_hand_is_found,
        books::i4_quarantine_keeps_where_why_and_how_long_for_any_number_of_events,
        books::only_counted_events_open_a_window,
        books::a_window_closes_only_after_the_plans_made_before_and_takes_no_row_afterwards,
        books::weeks_and_months_stand_beside_days_and_their_segments_become_one_once,
        books::hours_stand_beside_days_and_close_without_them,
        books::i9_a_plan_keeps_the_lists_of_groups_that_it_was_made_with_until_it_is_committed,
        books::i4_an_error_of_the_database_quotes_no_value,
        businesses::i9_an_account_is_there_when_its_range_is_committed_and_what_was_said_last_stands,
        businesses::i9_any_order_of_ranges_over_any_partitions_leaves_the_same_accounts,
        businesses::of_two_names_of_one_moment_the_greater_by_its_bytes_stands,
        businesses::i9_an_account_that_was_closed_is_shown_no_more_and_nothing_said_earlier_brings_it_back,
        businesses::partitions_that_hear_of_one_business_at_once_all_commit,
        businesses::i7_who_is_silent_is_gone_after_some_time_with_an_entry_in_the_log,
        kept::i2_many_tasks_over_two_handles_never_spend_more_than_the_limit_and_charge_no_question_twice,
        kept::i3_a_metric_window_is_released_once,
        kept::i3_releases_of_before_they_were_numbered_are_numbered,
        kept::i3_who_knows_the_newest_release_reads_what_came_since_and_nothing_of_another_database,
        ledger::i2_the_database_charges_as_a_plain_list_does_under_any_order_of_clients_crashes_and_repeated_questions,
        ledger::a_client_that_dies_at_any_moment_has_paid_or_not_and_holds_nothing,
        ledger::i2_charges_made_before_teams_and_thresholds_keep_their_meaning,
        ledger::i3_a_question_has_one_answer_and_only_after_it_was_charged,
        ledger::charges_over_thousands_of_days_are_all_or_none,
        ledger_crowd::i2_many_clients_of_many_teams_never_charge_beyond_any_limit,
        ledger_crowd::i2_processes_that_are_killed_or_lose_the_answer_have_paid_once,
        kept::i9_alerts_rise_in_the_feed_only_when_they_change_and_leave_the_outbox_only_in_the_form_that_was_published,
        kept::i6_an_audit_entry_that_is_changed_moved_removed_or_cut_off_breaks_the_chain,
        kept::i6_entries_appended_at_once_over_two_handles_make_one_chain,
        crowd::i9_owners_who_fight_over_partitions_commit_every_offset_once_and_in_order,
        crowd::i1_i2_i6_all_rooms_at_once_keep_every_book,
        crowd::paths_are_in_the_order_of_their_bytes,
        topics::the_first_id_of_a_topic_is_kept_and_a_later_one_only_told,
        topics::an_accepted_loss_fences_owners_gives_the_open_plan_up_with_its_number_and_is_recorded,
        topics::a_loss_of_a_partition_nobody_read_is_refused_and_nothing_changes,
        operations::the_quarantine_is_listed_newest_first_by_time_and_class_and_counted,
        operations::an_open_plan_is_seen_until_it_is_committed,
        opening::a_new_one_may_be_opened_by_many_at_once_and_keeps_what_was_committed,
        opening::one_of_a_newer_version_is_refused,
        opening::looking_whether_one_is_there_makes_nothing,
        work::i6_a_step_is_kept_with_its_entry_in_the_log_and_moves_the_alert_to_the_end_of_the_feed,
        work::of_two_who_decide_at_once_one_is_told_to_look_again,
        work::alerts_are_found_by_the_beginning_of_their_fingerprint,
        work::a_silence_is_kept_until_it_ends_or_is_ended,
        standing::a_kept_finding_is_at_no_door_of_the_feed_and_is_told_when_its_standing_allows_that,
        standing::what_was_told_stays_told_and_grows_whatever_became_of_its_rule,
        standing::i9_a_day_tells_its_allowance_and_no_more_over_all_parts_and_processes_at_once,
        standing::i9_a_commit_whose_answer_was_lost_is_repeated_and_counts_nothing_twice,
        standing::i6_a_demotion_keeps_what_its_version_finds_until_it_is_lifted_and_both_are_in_the_log,
        standing::of_two_who_demote_at_once_one_does_and_none_past_a_lifting_it_has_not_seen,
        standing::i7_kept_findings_are_gone_after_their_time_with_one_entry_in_the_log,
        standing::verdicts_are_found_by_when_their_alerts_were_told_first,
        standing::what_does_not_stand_is_told_to_those_only_who_were_told_that_it_did,
        standing::another_name_of_a_rule_changes_neither_allowance_nor_demotion,
        standing::alerts_told_before_this_was_kept_stay_told_as_of_their_last_evidence,
        accounts::i9_each_range_is_in_the_accounts_of_its_hours_once_whatever_is_committed_again,
        accounts::i6_what_is_refused_at_doors_adds_up_over_processes_and_is_in_the_log,
        accounts::accounts_are_gone_after_their_time_those_of_partitions_by_their_own_clock,
        accounts::one_process_looks_and_another_takes_over_when_it_has_gone,
        deliveries::i6_what_is_queued_moves_the_receiver_and_is_in_the_log_in_one_step,
        deliveries::a_sender_that_was_taken_over_from_can_write_nothing_more,
        deliveries::a_delivery_is_tried_again_when_its_time_comes_given_up_listed_and_sent_again_under_its_id,
        deliveries::p42_what_could_not_be_delivered_is_gone_after_thirty_days,
    );
    macro_rules! alone {
        ($ignored:expr, $($module:ident::$name:ident),* $(,)?) => {$(
            let name = concat!(stringify!($module), "::", stringify!($name));
            trials.push(Trial::test(name, || run($module::$name())).with_ignored_flag($ignored));
        )*};
    }
    alone!(false, opening::an_address_of_another_kind_is_refused, ledger::i2_the_same_a_thousand_times_in_memory,);
    alone!(
        no_server,
        postgres::i9_a_server_that_is_stopped_or_crashes_and_comes_back_is_used_again_and_has_lost_nothing,
        postgres::i9_a_commit_whose_answer_is_lost_is_an_error_and_taking_ownership_again_tells_that_it_happened,
        postgres::i9_a_connection_that_is_cut_off_in_silence_is_given_up_and_replaced,
        postgres::i9_changes_cut_off_in_the_middle_are_given_up_and_their_connections_replaced,
        postgres::i2_a_database_set_to_forget_commits_in_a_crash_does_not_forget_ours,
        postgres::i9_a_database_that_sorts_in_a_language_sorts_paths_and_names_by_their_bytes_all_the_same,
        postgres::i8_a_certificate_is_checked_when_asked_for_and_the_connection_is_encrypted,
        postgres::i4_a_wrong_password_a_missing_database_and_a_server_that_takes_no_writes_are_told_without_a_value,
    );
    let done = libtest_mimic::run(&Arguments::from_args(), trials);
    server::stop_shared();
    done.exit_code()
}
