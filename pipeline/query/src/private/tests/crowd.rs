//! Many who ask at one time, and those who stop waiting.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::engine;
use super::house::{House, town};

const SQL: &str = "SELECT country, COUNT(DISTINCT person), SUM(events) FROM private.person_day GROUP BY country ORDER BY country";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_clients_who_ask_the_same_get_one_answer_for_one_charge() {
    let house = House::rich(&town(60, 1), &[]).await;
    // As many engines over one house, as processes are.
    let mut clients = Vec::new();
    for _ in 0..4 {
        let engine = Arc::new(engine(&house).await);
        for _ in 0..4 {
            let engine = Arc::clone(&engine);
            clients.push(tokio::spawn(async move { engine.query(SQL).await.expect("an answer").batches }));
        }
    }
    let mut answers = Vec::new();
    for client in clients {
        answers.push(client.await.expect("no panic"));
    }
    let one = arrow::compute::concat_batches(&answers[0][0].schema(), &answers[0]).expect("a table");
    for answer in &answers {
        assert_eq!(arrow::compute::concat_batches(&answer[0].schema(), answer).expect("a table"), one);
    }
    let charges = house.charges().await;
    assert_eq!(charges.len(), 3, "one for each of three blocks: {charges:?}");
    assert!(charges.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(house.answers().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_waiting_has_paid_and_the_one_answer_is_drawn_under_that_charge() {
    for wait_us in [0, 500, 2_000, 5_000, 10_000, 20_000, 30_000, 45_000, 60_000, 90_000, 150_000] {
        let house = House::rich(&town(60, 1), &[]).await;
        let engine = engine(&house).await;
        let gone = tokio::time::timeout(Duration::from_micros(wait_us), engine.query(SQL)).await;
        // What the statement was at is ended when it gives its thread back; a transaction may still be on its way.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let paid = house.charges().await;
        assert!(gone.is_err() || paid.len() == 3, "an answer is paid for, after {wait_us} µs");
        let answer = engine.query(SQL).await.expect("an answer");
        let charges = house.charges().await;
        assert_eq!(charges.len(), 3, "charged once, after {wait_us} µs");
        assert!(paid.iter().all(|question| charges.contains(question)), "never paid back");
        assert_eq!(house.answers().await.len(), 1);
        assert_eq!(engine.query(SQL).await.expect("stored").batches, answer.batches);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_waiting_between_charge_and_answer_has_paid_for_the_answer_that_is_drawn_later() {
    let house = House::rich(&town(60, 1), &[]).await;
    let engine = engine(&house).await;
    let (reached, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (gate, closed) = std::sync::mpsc::channel::<()>();
    let closed = Mutex::new(closed);
    // The first step comes after the charge and its entry in the log, before any row is read: there the statement stands until
    // the gate is open.
    let watch: crate::Watch = Arc::new(move |step| {
        let _nobody_listens = reached.send(step);
        let _opened = closed.lock().expect("whole").recv();
    });
    let step = tokio::select! {
        gone = engine.query_watched(crate::TEAM, SQL, Arc::clone(&watch)) => panic!("nobody opened the gate: {:?}", gone.err()),
        step = told.recv() => step.expect("the statement holds the other end"),
    };
    assert_eq!((step.question, step.questions, step.read, step.blocks), (1, 1, 0, 3));
    drop(gate);
    // The statement holds the watch until it has ended.
    while Arc::strong_count(&watch) > 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let paid = house.charges().await;
    assert_eq!((paid.len(), house.audited().await, house.answers().await.len()), (3, 1, 0), "charged and not answered");
    let answer = engine.query(SQL).await.expect("an answer");
    assert_eq!((house.charges().await, house.answers().await.len()), (paid, 1), "drawn under that charge, and never paid back");
    assert_eq!(engine.query(SQL).await.expect("stored").batches, answer.batches);
}
