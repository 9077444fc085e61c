//! What only PostgreSQL can do to a metastore: stop, crash, be cut off, refuse, forget, sort in a language of its own.

use serde_json::json;
use starling_schemas::ids::Offset;
use starling_store::{Metastore, StoreError};

use crate::proxy::{self, Proxy};
use crate::server::Server;
use crate::support::{Kind, Place, commit_range, outcome, partition};
use crate::{businesses, crowd};

fn on(server: &Server, options: &str) -> Place {
    Place { kind: Kind::Postgres, url: server.database(options), folder: tempfile::tempdir().expect("a folder") }
}

/// Tries until it works: a server that starts takes its time.
async fn at_last(what: &str, mut attempt: impl AsyncFnMut() -> Result<(), StoreError>) {
    for _ in 0..600 {
        if attempt().await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    panic!("waited in vain for {what}");
}

pub(crate) async fn i9_a_server_that_is_stopped_or_crashes_and_comes_back_is_used_again_and_has_lost_nothing() {
    let server = Server::start();
    let metastore = on(&server, "").open().await;
    let own = metastore.take_ownership(&partition(0), "test", 1).await.expect("takes");
    // Several connections, all of which will be dead.
    let together = (0..8).map(|_| metastore.partitions());
    assert!(futures::future::join_all(together).await.iter().all(Result::is_ok));
    let mut from = Offset(0);
    for (round, how) in ["fast", "immediate", "immediate"].into_iter().enumerate() {
        let plan = metastore.plan(&partition(0), own.generation, from, Offset(from.0 + 10), 2).await.expect("plans");
        server.stop(how);
        if round == 1 {
            let error = metastore.commit(&plan, &outcome(&plan), 3).await.expect_err("there is no server");
            assert!(matches!(error, StoreError::Database { .. }), "{error}");
        }
        server.start_again();
        metastore.commit(&plan, &outcome(&plan), 3).await.expect("the plan survived, and a new connection was made");
        from = plan.to;
    }
    let status = metastore.partitions().await.expect("reads").remove(0);
    assert_eq!((status.events, status.next_offset), (30, Some(Offset(30))));
}

pub(crate) async fn i9_a_commit_whose_answer_is_lost_is_an_error_and_taking_ownership_again_tells_that_it_happened() {
    let server = Server::start();
    let place = on(&server, "");
    let proxy = Proxy::before(server.port()).await;
    let url = place.url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port)) + "?sslmode=disable";
    let metastore = Metastore::open(&url).await.expect("opens");
    let own = metastore.take_ownership(&partition(0), "test", 1).await.expect("takes");
    let plan = metastore.plan(&partition(0), own.generation, Offset(0), Offset(10), 2).await.expect("plans");
    proxy.set(proxy::LOSE_COMMIT_ANSWERS);
    let error = metastore.commit(&plan, &outcome(&plan), 3).await.expect_err("the answer was lost");
    assert!(matches!(&error, StoreError::Database { .. }) && error.to_string().contains("may have happened"), "{error}");
    proxy.set(proxy::PASS);
    let again = metastore.take_ownership(&partition(0), "test", 4).await.expect("takes, over a new connection");
    assert_eq!((again.next_offset, again.open_plan), (Some(Offset(10)), None), "it had happened");
    assert!(matches!(metastore.commit(&plan, &outcome(&plan), 5).await, Err(StoreError::Fenced)), "and happens once");
}

pub(crate) async fn i9_a_connection_that_is_cut_off_in_silence_is_given_up_and_replaced() {
    let server = Server::start();
    let place = on(&server, "");
    let proxy = Proxy::before(server.port()).await;
    let url = place.url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port)) + "?sslmode=disable";
    let metastore = Metastore::open(&url).await.expect("opens");
    commit_range(&metastore, &partition(0), outcome).await.expect("commits");
    proxy.set(proxy::SILENT);
    // More than there are connections: each of them is lost.
    let zero = partition(0);
    let cut_off = (0..12).map(|_| metastore.take_ownership(&zero, "cut off", 4));
    for done in futures::future::join_all(cut_off).await {
        assert!(matches!(done, Err(StoreError::Database { .. })), "{done:?}");
    }
    proxy.set(proxy::PASS);
    at_last("a new connection", async || metastore.take_ownership(&partition(0), "back", 5).await.map(drop)).await;
    commit_range(&metastore, &partition(0), outcome).await.expect("commits");
    assert_eq!(metastore.partitions().await.expect("reads")[0].events, 20);
}

pub(crate) async fn i9_changes_cut_off_in_the_middle_are_given_up_and_their_connections_replaced() {
    let server = Server::start();
    let place = on(&server, "");
    let proxy = Proxy::before(server.port()).await;
    let url = place.url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port)) + "?sslmode=disable";
    let metastore = Metastore::open(&url).await.expect("opens");
    proxy.set(proxy::HOLD_COMMITS);
    // More than there are connections: each of them hangs in its COMMIT.
    let taken: Vec<_> = (0..12).map(partition).collect();
    let cut_off = taken.iter().map(|partition| metastore.take_ownership(partition, "cut off", 4));
    let mut unanswered = 0;
    for done in futures::future::join_all(cut_off).await {
        let error = done.expect_err("nobody answers").to_string();
        unanswered += usize::from(error.contains("did not answer in time"));
    }
    assert!(unanswered > 1, "some were in the middle");
    proxy.set(proxy::PASS);
    // At once: the hung connections are not waited for. The server undid what they had begun, or does so when it is told of their end.
    at_last("the locks of what hung", async || metastore.take_ownership(&partition(0), "back", 5).await.map(drop)).await;
    commit_range(&metastore, &partition(0), outcome).await.expect("commits");
}

pub(crate) async fn i2_a_database_set_to_forget_commits_in_a_crash_does_not_forget_ours() {
    let server = Server::start();
    let place = on(&server, "");
    place
        .execute("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$")
        .await;
    let metastore = place.open().await;
    // The log writer of the server wakes every 200 ms: of many fresh commits without a flush some would be lost.
    for n in 0..50 {
        metastore.append_audit("read", json!({ "n": n }), n).await.expect("appends");
    }
    server.stop("immediate");
    server.start_again();
    assert_eq!(metastore.verify_audit().await.expect("verifies"), 50);
}

pub(crate) async fn i9_a_database_that_sorts_in_a_language_sorts_paths_and_names_by_their_bytes_all_the_same() {
    let server = Server::start();
    const ENGLISH: &str = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'";
    crowd::paths_are_in_the_order_of_their_bytes(on(&server, ENGLISH)).await;
    businesses::of_two_names_of_one_moment_the_greater_by_its_bytes_stands(on(&server, ENGLISH)).await;
}

pub(crate) async fn i8_a_certificate_is_checked_when_asked_for_and_the_connection_is_encrypted() {
    let server = Server::start();
    let place = on(&server, "");
    let certificate = server.dir().join("server.crt");
    let strict = format!("{}?sslmode=verify-full&sslrootcert={}", place.url, certificate.display());
    let metastore = Metastore::open(&strict).await.expect("opens");
    assert_eq!(metastore.probe().await.expect("answers").encrypted, Some(true));
    let error = Metastore::open(&format!("{}?sslmode=verify-full", place.url)).await.err().expect("signed by nobody known");
    assert!(error.to_string().contains("sslrootcert"), "{error}");
    let plain = Metastore::open(&format!("{}?sslmode=disable", place.url)).await.expect("opens");
    assert_eq!(plain.probe().await.expect("answers").encrypted, Some(false));
}

pub(crate) async fn i4_a_wrong_password_a_missing_database_and_a_server_that_takes_no_writes_are_told_without_a_value() {
    let server = Server::start();
    let place = on(&server, "");
    drop(place.open().await);
    let wrong = place.url.replace(&server.password(), "canary-4917");
    let elsewhere = format!("{}-canary-4917", place.url);
    for (url, expected) in [(wrong, "password"), (elsewhere, "no such database")] {
        let error = Metastore::open(&url).await.err().expect("refused");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!format!("{error:?}").contains("4917") && !format!("{error:?}").contains(&server.password()), "{error:?}");
    }
    place
        .execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$",
        )
        .await;
    let error = Metastore::open(&place.url).await.err().expect("no writes");
    assert!(error.to_string().contains("takes no writes"), "{error}");
}
