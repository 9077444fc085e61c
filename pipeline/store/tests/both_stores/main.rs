//! What the file store promises, tried on a local folder and on S3. The S3 half runs when `STARLING_TEST_S3` names a server, such as
//! `tests/s3/run.sh` starts.

mod bad_server;
mod durability;
mod files;
mod only_s3;
mod places;
mod tables;

use std::future::Future;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use places::Place;

/// Every test, each ignored where it cannot run: a test that did not run has not passed, which Rust's own harness cannot say.
fn main() -> ExitCode {
    if let Some(folder) = std::env::var_os(durability::CHILD) {
        return durability::child(std::path::Path::new(&folder));
    }
    let no_server = places::server().is_none();
    if no_server {
        eprintln!("skipped: STARLING_TEST_S3 names no server; `tests/s3/run.sh COMMAND` starts one");
    }
    let mut trials = Vec::new();
    macro_rules! both {
        ($($module:ident :: $name:ident),* $(,)?) => {$(
            trials.push(trial(concat!("local::", stringify!($name)), || $module::$name(Place::local())));
            trials.push(trial(concat!("s3::", stringify!($name)), || $module::$name(Place::s3())).with_ignored_flag(no_server));
        )*};
    }
    both!(
        files::a_file_is_replaced_read_listed_and_removed,
        files::a_folder_of_fifteen_hundred_files_goes_and_nothing_else,
        files::i3_of_eight_who_create_a_file_one_wins_and_its_bytes_stay,
        files::a_path_that_leads_elsewhere_is_refused,
        files::the_check_finds_a_good_store_good_and_leaves_nothing,
        files::a_sealed_file_opens_in_its_place_only,
        files::a_file_of_many_megabytes_comes_back_whole,
        tables::i4_neither_values_nor_column_names_nor_the_key_are_in_the_file,
        tables::a_table_of_many_row_groups_streams_back_in_order_in_small_batches,
        tables::a_table_replaces_the_one_before_only_when_it_is_finished,
        tables::an_empty_table_reads_as_empty,
        tables::another_key_opens_nothing_and_a_missing_file_says_so,
        tables::a_changed_byte_anywhere_is_noticed_and_none_ends_the_process,
        tables::a_table_cut_short_is_unreadable_and_not_missing,
        tables::rows_of_another_schema_are_refused_and_a_dropped_writer_leaves_nothing,
        tables::a_large_table_dropped_in_the_middle_leaves_nothing,
        tables::what_a_killed_writer_left_goes_with_its_folder,
    );
    macro_rules! only {
        ($ignored:expr; $($module:ident :: $name:ident),* $(,)?) => {$(
            trials.push(trial(concat!(stringify!($module), "::", stringify!($name)), $module::$name).with_ignored_flag($ignored));
        )*};
    }
    only!(no_server;
        only_s3::a_small_table_is_read_with_one_request_and_a_large_one_with_one_for_each_row_group,
        only_s3::wrong_credentials_and_a_missing_bucket_are_told_as_what_they_are,
        only_s3::two_prefixes_of_a_bucket_do_not_see_each_other,
        only_s3::a_server_that_stops_is_told_in_bounded_time_and_all_goes_on_when_it_is_back,
    );
    only!(false;
        bad_server::i3_a_server_that_replaces_what_was_to_be_created_once_is_refused_before_anything_is_lost,
        bad_server::i3_a_server_that_says_it_knows_no_conditions_is_refused,
        bad_server::a_conflict_is_tried_again_and_is_not_taken_for_a_file_that_is_there,
        bad_server::i3_a_creation_whose_answer_got_lost_says_that_the_file_is_there,
        bad_server::a_connection_that_is_cut_off_is_tried_again_also_for_removals,
        bad_server::a_busy_server_is_waited_for_and_then_told,
        bad_server::i4_what_a_strange_server_answers_is_in_no_error,
    );
    only!(!durability::can_trace(); durability::what_was_put_is_synced_with_every_name_on_its_way);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial {
    Trial::test(name, || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(test());
        Ok(())
    })
}
