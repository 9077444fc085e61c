//! Sessions of users who may not come in any more, and who have many.

use serde_json::json;

use crate::house::{House, Served};

pub(crate) fn a_session_ends_with_what_it_was_opened_with(house: &House) {
    let users = house.own_users("pg-leaving.toml");
    let served = Served::start(house, &[&format!("users_file = {users:?}")]);
    let mut sessions = ["ada", "joe", "eng"].map(|user| served.psycopg(user, &[]));
    for session in &mut sessions {
        assert_eq!(session.ask(json!({ "sql": "SELECT 1" }))["rows"], json!([[1]]));
    }
    let [ada, joe, eng] = &mut sessions;
    house.users_in(&users, &["remove", "ada"]);
    house.users_in(&users, &["add", "joe", "--replace", "--role", "auditor", "--team", "audit"]);
    for session in [ada, joe] {
        let told = session.ask(json!({ "sql": "SELECT 4711" }));
        assert!(told["code"] == "28000" && told["rows"].is_null(), "{told}");
        assert!(told["message"].as_str().is_some_and(|text| text.contains("lets nobody in any more")), "{told}");
        let after = session.ask(json!({ "sql": "SELECT 4711" }));
        assert!(after["rows"].is_null(), "the connection is closed: {after}");
    }
    assert_eq!(eng.ask(json!({ "sql": "SELECT 1" }))["rows"], json!([[1]]), "another user's goes on");
    // A file that cannot be used lets nobody do anything, and says so.
    std::fs::write(&users, "no list\n").expect("written");
    let told = eng.ask(json!({ "sql": "SELECT 1" }));
    assert!(told["code"] == "58030" && told["rows"].is_null(), "{told}");
}

pub(crate) fn statements_of_one_user_wait_for_their_turn_and_nobody_else_for_them(house: &House) {
    let served = Served::start(house, &["statements = 1"]);
    let (mut first, mut second, mut other) = (served.psycopg("sam", &[]), served.psycopg("sam", &[]), served.psycopg("tim", &[]));
    crate::begin_long(house, &mut first, "sam");
    second.begin(json!({ "sql": "SELECT 2" }));
    assert_eq!(other.ask(json!({ "sql": "SELECT 1" }))["rows"], json!([[1]]));
    assert_eq!(first.answer()["code"], "57014", "its ten seconds are up");
    assert_eq!(second.answer()["rows"], json!([[2]]));
    // A statement is in the log when it is its turn.
    let log = crate::tail(house);
    let mut entries = log.lines().enumerate().collect::<Vec<_>>();
    entries.retain(|(_, line)| line.contains("sql_read"));
    let of = |user: &str| entries.iter().rfind(|(_, line)| line.contains(&format!("\"{user}\""))).map(|(at, _)| *at);
    let (tims, sams) = (of("tim").expect("an entry"), of("sam").expect("an entry"));
    assert!(tims < sams, "{log}");
}
