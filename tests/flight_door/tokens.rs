//! Tokens of an identity provider, and client certificates: at each call anew, as those of users.

use std::path::Path;

use serde_json::json;
use tonic::{Code, Status};

use crate::authority::{Authority, Shown};
use crate::client::{Flight, command_with, refusal, run, started, ticket, token, until};
use crate::ends::Trusting;
use crate::house::{House, Served};
use crate::provider::{Provider, claims, now_s};

const ROW: &str = "SELECT 40 + 2 AS n";

fn served(house: &House, provider: &Provider) -> Served {
    started(command_with(house, &crate::doors::with_tokens(house), &format!("\n{}leeway_s = 0\n", provider.settings())))
}

pub(crate) fn p32_a_token_of_the_provider_is_looked_at_at_each_call(house: &House) {
    let provider = Provider::start();
    let served = served(house, &provider);
    let nobody = |answer: Result<(), Status>| assert_eq!(refusal(answer), (Code::Unauthenticated, "28000".to_owned()));
    run(async {
        let ada = Flight::of(&served, &provider.token_of("ada", "product", "product")).await;
        assert!(ada.ask(ROW).await.expect("rows").table().contains("42"));
        for kid in ["ec", "ed"] {
            let own = ada.with(&provider.token(kid, &claims("ada", "product", "product")));
            assert!(own.ask(ROW).await.expect("rows").table().contains("42"), "{kid}");
        }
        // Refused as a user of its role is.
        let users = ada.with(&token(house, "aud"));
        let aud = ada.with(&provider.token_of("zoe", "auditor", "audit"));
        for sql in
            ["SELECT count(*) FROM private.person_day", "SELECT count(*) FROM integrity.alerts", "DROP TABLE stats.calls_daily"]
        {
            let (theirs, ours) = (aud.plan(sql).await.expect_err("refused"), users.plan(sql).await.expect_err("refused"));
            assert_eq!((theirs.code(), theirs.message()), (ours.code(), ours.message()), "{sql}");
        }
        // A ticket is its own: not a user's of the same name and role, not another role's, not another subject's.
        let plan = ada.plan(ROW).await.expect("plans");
        for other in [
            token(house, "ada"),
            provider.token_of("ada", "privacy", "product"),
            provider.token_of("ada", "product", "growth"),
            provider.token_of("zoe", "product", "product"),
        ] {
            assert_eq!(refusal(ada.with(&other).get(ticket(&plan)).await), (Code::PermissionDenied, "42501".to_owned()));
        }
        let again = ada.with(&provider.token("ed", &claims("ada", "product", "product")));
        assert!(again.get(ticket(&plan)).await.expect("rows").table().contains("42"), "a new token of the same person");
        // What is no token is nobody's, and what gives no role is let into nothing.
        let with = |name: &str, value: serde_json::Value| {
            let mut claims = claims("ada", "product", "product");
            claims[name] = value;
            provider.token("rsa", &claims)
        };
        for (name, value) in [
            ("aud", json!("other")),
            ("iss", json!("https://other.example")),
            ("exp", json!(now_s() - 1)),
            ("nbf", json!(now_s() + 120)),
            ("exp", json!(null)),
        ] {
            nobody(ada.with(&with(name, value.clone())).plan(ROW).await.map(drop));
        }
        for (name, value) in
            [("starling_role", json!("root")), ("starling_role", json!(["product"])), ("starling_team", json!(7))]
        {
            let answer = ada.with(&with(name, value.clone())).plan(ROW).await;
            assert_eq!(refusal(answer), (Code::PermissionDenied, "42501".to_owned()), "{name}: {value}");
        }
        let unsigned = provider.token_of("ada", "product", "product");
        nobody(ada.with(unsigned.rsplit_once('.').expect("parts").0).plan(ROW).await.map(drop));
        nobody(ada.with(&format!("{}.", unsigned.rsplit_once('.').expect("parts").0)).plan(ROW).await.map(drop));
        // It ends, between the plan and the rows too.
        let mut short = claims("ada", "product", "product");
        short["exp"] = json!(now_s() + 30);
        let ending = ada.with(&provider.token("ed", &short));
        let plan = ending.plan(ROW).await.expect("plans");
        until("the token has ended", || async { now_s() > short["exp"].as_u64().expect("an end") }).await;
        nobody(ending.get(ticket(&plan)).await.map(drop));
        assert!(ada.get(ticket(&plan)).await.expect("rows").table().contains("42"), "and its person goes on with a new one");
        // No token is a password.
        let answer = ada.log_in("ada", &provider.token_of("ada", "product", "product")).await;
        assert_eq!(refusal(answer), (Code::Unauthenticated, "28P01".to_owned()));
    });
}

pub(crate) fn without_users_a_provider_lets_in_and_nobody_else_does(house: &House) {
    let provider = Provider::start();
    let users = "users_file = \"/nowhere/users.toml\"";
    let served = started(command_with(house, users, &format!("\n{}", provider.settings())));
    run(async {
        let ada = Flight::of(&served, &provider.token_of("ada", "product", "product")).await;
        assert!(ada.ask(ROW).await.expect("rows").table().contains("42"));
        for wrong in ["wrong", &token(house, "ada")] {
            let answer = ada.with(wrong).plan(ROW).await;
            assert_eq!(refusal(answer), (Code::Unauthenticated, "28000".to_owned()), "there are no users whose it could be");
        }
        let nobody = Flight::nobody(&served).await;
        assert_eq!(refusal(nobody.plan(ROW).await), (Code::Unauthenticated, "28000".to_owned()));
    });
}

async fn over(house: &House, served: &Served, shown: Option<&Shown>) -> Result<Flight, String> {
    let shown = shown.map(|Shown { certificate, key }| (certificate.as_path(), key.as_path()));
    let channel = Trusting::with(&served.flight, &house.certificate().0, shown).channel().await;
    channel.map(Flight::over).map_err(|error| error.to_string())
}

fn certified(house: &House, authority: &Authority, users: &Path) -> Served {
    let text = format!("[postgres]\nusers_file = {users:?}\n{}", authority.settings(house, &["flight"], "optional"));
    started(Served::command_with(house, &text))
}

pub(crate) fn a_certificate_makes_calls_its_users_and_nobody_elses(house: &House) {
    let authority = Authority::new(house);
    let users = house.own_users("flight-certified.toml");
    house.users_in(&users, &["certificate", "ada", "spiffe://flock.example/ada"]);
    let of_pia = house.users_in(&users, &["token", "pia"]);
    let served = certified(house, &authority, &users);
    let ada = authority.certificate("ada", "URI:spiffe://flock.example/ada", "2", "clientAuth");
    let eve = authority.certificate("eve", "URI:spiffe://flock.example/eve", "2", "clientAuth");
    run(async {
        let flight = over(house, &served, Some(&ada)).await.expect("connects");
        let plan = flight.plan(ROW).await.expect("plans");
        assert!(flight.get(ticket(&plan)).await.expect("rows").table().contains("42"));
        assert!(flight.plan("SELECT count(*) FROM private.person_day").await.is_ok(), "as ada's role may");
        // What is shown beside it says who it is; a wrong token is nobody's.
        assert_eq!(refusal(flight.with(&of_pia).get(ticket(&plan)).await), (Code::PermissionDenied, "42501".to_owned()));
        assert_eq!(refusal(flight.with("wrong").plan(ROW).await), (Code::Unauthenticated, "28000".to_owned()));
        let stranger = over(house, &served, Some(&eve)).await.expect("connects");
        let told = stranger.plan(ROW).await.expect_err("nobody's");
        assert!(told.code() == Code::Unauthenticated && told.message().contains("starling users certificate"), "{told}");
        assert!(stranger.with(&of_pia).ask(ROW).await.is_ok());
        let none = over(house, &served, None).await.expect("connects");
        assert_eq!(refusal(none.plan(ROW).await), (Code::Unauthenticated, "28000".to_owned()));
        // At each call anew: its user is gone, and the connection is the same.
        house.users_in(&users, &["certificate", "ada", "--revoke"]);
        assert_eq!(refusal(flight.get(ticket(&plan)).await), (Code::Unauthenticated, "28000".to_owned()));
        for (shown, why) in [
            (authority.certificate("old", "URI:spiffe://flock.example/ada", "-1", "clientAuth"), "it has expired"),
            (authority.signed("stranger", "other", "URI:spiffe://flock.example/ada", "2", "clientAuth"), "it is of no authority"),
        ] {
            // A client of TLS 1.3 may believe to be in before it hears of it.
            let answer = match over(house, &served, Some(&shown)).await {
                Ok(flight) => flight.with(&of_pia).plan(ROW).await.map(drop).map_err(|status| status.to_string()),
                Err(error) => Err(error),
            };
            assert!(answer.is_err(), "{why}");
            until(why, || async { served.log().contains(why) }).await;
        }
    });
}
