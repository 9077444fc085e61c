//! The document against the server: every route's answer has the shape that the document says, and whatever is made up from the document is answered
//! in one of the ways it names.

use std::process::Command;

use serde_json::{Value, json};

use crate::client::send;
use crate::doors::{token, with_users, without_users};
use crate::house::House;
use crate::support::{alerts, workspace};

/// As much of JSON Schema as the document uses, strictly: an unknown word is an error.
struct Schemas<'a>(&'a Value);

impl Schemas<'_> {
    fn check(&self, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
        let fault = |what: &str| Err(format!("{place}: {what}"));
        for (word, told) in schema.as_object().ok_or_else(|| format!("{place}: no schema"))? {
            match word.as_str() {
                "$ref" => {
                    let target = told.as_str().and_then(|target| self.0.pointer(target.trim_start_matches('#')));
                    self.check(target.ok_or_else(|| format!("{place}: {told} leads nowhere"))?, value, place)?;
                }
                "type" => {
                    let kinds: Vec<&str> = told.as_array().map_or_else(
                        || vec![told.as_str().unwrap()],
                        |all| all.iter().map(|kind| kind.as_str().unwrap()).collect(),
                    );
                    if !kinds.iter().any(|kind| is(kind, value)) {
                        return fault(&format!("is no {}", kinds.join(" or ")));
                    }
                }
                "required" => {
                    for name in told.as_array().into_iter().flatten() {
                        if value.get(name.as_str().unwrap()).is_none() {
                            return fault(&format!("{name} is not there"));
                        }
                    }
                }
                "properties" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        match told.get(name) {
                            Some(schema) => self.check(schema, value, &format!("{place}.{name}"))?,
                            None if schema["additionalProperties"] == json!(false) => {
                                return fault(&format!("{name} is not told of"));
                            }
                            None => {}
                        }
                    }
                }
                "items" => {
                    for (at, value) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(told, value, &format!("{place}[{at}]"))?;
                    }
                }
                "enum" if !told.as_array().unwrap().contains(value) => return fault("is none of the list"),
                "const" if told != value => return fault("is another word"),
                "oneOf" => {
                    let fits = told.as_array().unwrap().iter().filter(|one| self.check(one, value, place).is_ok()).count();
                    if fits != 1 {
                        return fault(&format!("fits {fits} of one"));
                    }
                }
                "pattern" | "enum" | "const" | "description" | "additionalProperties" | "maxLength" | "format" => {}
                other => return fault(&format!("the test does not know {other}")),
            }
        }
        Ok(())
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => value.is_null(),
    }
}

pub(crate) fn every_answer_has_the_shape_that_the_document_says(house: &House) {
    let served = with_users(house, "");
    let document = served.get("/v1/openapi.json", &[]).json();
    assert_eq!(document["openapi"], "3.1.0");
    let schemas = Schemas(&document);
    let alert = alerts(&house.data)[2]["fingerprint"].as_str().expect("fingerprint").to_owned();
    let (ada, ivy, aud) = (token(house, "ada"), token(house, "ivy"), token(house, "aud"));
    let login = json!({ "name": "ada", "password": crate::house::PASSWORD }).to_string();
    let mut shapes = 0;
    for (method, path, token, body) in [
        ("post", "/v1/login", "", login.as_str()),
        ("get", "/v1/me", &ada, ""),
        ("post", "/v1/sql", &ada, r#"{"sql":"SELECT * FROM stats.people_served_daily"}"#),
        ("post", "/v1/sql", &ada, r#"{"sql":"SELECT * FROM meta.releases"}"#),
        ("post", "/v1/sql", &ada, r#"{"sql":"SELECT FROM"}"#),
        ("post", "/v1/sql", &ivy, r#"{"sql":"SELECT * FROM private.person_day"}"#),
        ("post", "/v1/sql", "", r#"{"sql":"SELECT 1"}"#),
        ("get", "/v1/metrics", &ada, ""),
        ("get", "/v1/budget", &aud, ""),
        ("get", "/v1/budget", &ada, ""),
        ("get", "/v1/audit", &aud, ""),
        ("get", "/v1/audit?limit=1", &aud, ""),
        ("get", "/v1/audit?limit=x", &aud, ""),
        ("get", "/v1/health", &ada, ""),
        ("get", "/v1/promises", &ada, ""),
        ("get", "/v1/alerts", &ivy, ""),
        ("get", "/v1/alerts?kept=true&rule=slow_bulk", &ivy, ""),
        ("get", "/v1/alerts?kept=perhaps", &ivy, ""),
        ("get", "/v1/alerts/rules", &ivy, ""),
        ("post", "/v1/alerts/rules/{rule}/restore", &ivy, r#"{"text":"looked at"}"#),
        ("post", "/v1/alerts/rules/{rule}/restore", &ivy, r#"{"text":"call +49 170 1234567"}"#),
        ("post", "/v1/alerts/rules/{rule}/restore", &ivy, "{}"),
        ("post", "/v1/alerts/{alert}/steps", &ivy, r#"{"step":"note","text":"seen"}"#),
        ("post", "/v1/alerts/{alert}/silence", &ivy, r#"{"for":"1h","text":"known"}"#),
        ("get", "/v1/alerts/silences", &ivy, ""),
        ("get", "/v1/alerts/{alert}", &ivy, ""),
        ("delete", "/v1/alerts/{alert}/silence", &ivy, ""),
        ("get", "/v1/alerts/nothing", &ivy, ""),
    ] {
        let answer = send(
            &served.http,
            &method.to_uppercase(),
            &path.replace("{alert}", &alert).replace("{rule}", "slow_bulk"),
            &[token].map(|line| if line.is_empty() { "X-Nobody: 1" } else { line }),
            body,
        );
        let known = path.split('?').next().unwrap().replace("/v1/alerts/nothing", "/v1/alerts/{alert}");
        let told = &document["paths"][&known][method]["responses"][answer.status.to_string()];
        assert!(told.is_object(), "{method} {path}: {} is not told of: {}", answer.status, answer.text());
        let told = told["$ref"].as_str().map_or(told, |target| document.pointer(target.trim_start_matches('#')).expect("there"));
        let schema = &told["content"]["application/json"]["schema"];
        if let Err(fault) = schemas.check(schema, &answer.json(), "") {
            panic!("{method} {path}: {fault}");
        }
        shapes += 1;
    }
    assert_eq!(shapes, 28);
    // The check itself tells.
    for (schema, value) in [("Me", json!({ "name": "x" })), ("Refusal", json!({ "code": "1", "reason": 7, "hint": "" }))] {
        assert!(schemas.check(&document["components"]["schemas"][schema], &value, "").is_err(), "{schema}");
    }
}

pub(crate) fn what_is_made_up_from_the_document_is_answered_as_it_says(house: &House) {
    let served = without_users(house, "");
    let with = with_users(house, "");
    let tool = crate::schemathesis().expect("found before");
    let report = house.dir.path().join("schemathesis");
    for (address, header) in [(&served.http, None), (&with.http, Some(token(house, "ada"))), (&with.http, None)] {
        let url = format!("http://{address}");
        let mut command = Command::new(&tool);
        command.current_dir(house.dir.path()).env("HYPOTHESIS_STORAGE_DIRECTORY", &report);
        command.args([
            "-m",
            "schemathesis.cli",
            "run",
            &format!("{url}/v1/openapi.json"),
            "--url",
            &url,
            "--seed",
            "1",
            "--max-examples",
            "6",
        ]);
        // A stream does not end, and the console is no JSON. What a statement may say no schema tells.
        command.args(["--exclude-path", "/v1/alerts/stream", "--exclude-path-regex", "^/(console.*)?$"]);
        command.args([
            "--exclude-checks",
            "positive_data_acceptance",
            "--phases",
            "coverage,fuzzing",
            "--no-color",
            "--generation-database",
            "none",
            // On a busy machine it would call its own generation too slow.
            "--suppress-health-check",
            "all",
        ]);
        if let Some(header) = &header {
            command.args(["--header", &header.replacen(": ", ":", 1)]);
        }
        let output = command.output().expect("starts");
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{told}");
        assert!(told.contains("Tested: 19"), "{told}");
    }
    assert!(!served.log().contains("a defect") && !with.log().contains("a defect"), "{}{}", served.log(), with.log());
    assert!(workspace().join("jobs/src/serve/openapi.json").is_file());
}
