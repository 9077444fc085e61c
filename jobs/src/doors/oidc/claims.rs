//! What a token says, once its signature is good: for whom it is, for how long, and as whom somebody comes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use starling_integrity::work::{LONGEST_NAME, check_name};
use starling_query::{Principal, Role};

use super::settings::OidcSettings;
use super::{Passport, Signed, nobody};
use crate::doors::Refusal;
use crate::doors::users::{is_name, roles};

/// Letters of a subject's hash, where the subject itself cannot stand in the log.
pub(super) const HASHED: usize = 32;

/// The claims by name. One that is there twice is refused: two readers may each believe another one.
pub(super) struct Claims(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Claims;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("claims")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if claims.insert(name, value).is_some() {
                        return Err(A::Error::custom("a claim is there twice"));
                    }
                }
                Ok(Claims(claims))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

impl Claims {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// Milliseconds of a claim that is a time; `Err`: it is there and is none.
    fn time_ms(&self, name: &str) -> Result<Option<i64>, ()> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let seconds = value.as_f64().filter(|seconds| seconds.is_finite() && (0.0..9e12).contains(seconds)).ok_or(())?;
        #[allow(clippy::cast_possible_truncation)]
        Ok(Some((seconds * 1000.0) as i64))
    }

    /// Whether it is for this audience, alone or among others.
    fn is_for(&self, audience: &str) -> bool {
        match self.0.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(several)) => {
                several.iter().all(Value::is_string) && several.iter().any(|one| one.as_str() == Some(audience))
            }
            _ => false,
        }
    }

    /// As whom it lets somebody in, and until when.
    ///
    /// # Errors
    /// 28000 where it is not for here or not for now; 42501 where it gives no role or team.
    pub(super) fn admit(
        &self,
        settings: &OidcSettings,
        (kid, signed, mark): (&str, Signed, blake3::Hash),
        now_ms: i64,
    ) -> Result<Passport, Refusal> {
        if self.text("iss") != Some(&settings.issuer) {
            return Err(nobody("the token is of another issuer", "get one of the issuer in oidc.issuer"));
        }
        if !self.is_for(&settings.audience) {
            return Err(nobody("the token is for somebody else", "get one whose `aud` holds what stands in oidc.audience"));
        }
        let unreadable = |()| nobody("a time in the token is none", "`exp`, `nbf` and `iat` are seconds since 1970, as numbers");
        let (leeway_ms, longest_ms) = (i64::from(settings.leeway_s) * 1000, i64::from(settings.longest_s) * 1000);
        let ends_ms = self.time_ms("exp").map_err(unreadable)?;
        let ends_ms = ends_ms.ok_or_else(|| nobody("the token has no end", "get one with `exp`"))?;
        if now_ms >= ends_ms.saturating_add(leeway_ms) {
            return Err(nobody("the token has expired", "get a new one"));
        }
        if ends_ms > now_ms.saturating_add(longest_ms).saturating_add(leeway_ms) {
            return Err(nobody(
                "the token is good for too long",
                "get a shorter one, or raise oidc.longest_s: nothing ends it earlier",
            ));
        }
        for name in ["nbf", "iat"] {
            if self.time_ms(name).map_err(unreadable)?.is_some_and(|from| from > now_ms.saturating_add(leeway_ms)) {
                return Err(nobody("the token is not good yet", "wait, or set the clocks right: oidc.leeway_s"));
            }
        }
        let subject = self.text("sub").filter(|subject| !subject.is_empty());
        let subject = subject.ok_or_else(|| nobody("the token says of nobody whom it is of", "get one with `sub`"))?;
        if could_be_number(subject) {
            let hint = "the provider is to put something else into `sub`, such as a number of its own of 16 digits or more: what stands in the log \
                        must not lead to a phone";
            return Err(Refusal::new("42501", "the token's `sub` could be a phone number", hint));
        }
        let role = self.text(&settings.role_claim).and_then(Role::named).ok_or_else(|| {
            let hint = format!("the provider is to put one of {} into the claim of oidc.role_claim, as one text", roles());
            Refusal::new("42501", "the token gives no role that there is here", hint)
        })?;
        let team = self.text(&settings.team_claim).filter(|team| is_name(team)).ok_or_else(|| {
            let hint = "the provider is to put a team's name, of a–z, 0–9, `.`, `-`, `_`, into the claim of oidc.team_claim, as one text";
            Refusal::new("42501", "the token gives no team", hint)
        })?;
        let who = Principal { name: name(subject, settings), role, team: team.to_owned() };
        Ok(Passport { who: Arc::new(who), ends_ms, kid: kid.to_owned(), by: (signed, mark) })
    }
}

/// Whether a subject could be a phone number, with a word before or after it at the most: seven to fifteen digits (E.164 has no more) with no letter
/// between them. Neither it nor its hash may stand in the log: all numbers there are can be tried in minutes.
fn could_be_number(subject: &str) -> bool {
    let (mut digits, mut runs, mut in_run) = (0, 0, false);
    for sign in subject.chars() {
        if sign.is_numeric() {
            digits += 1;
            runs += usize::from(!in_run);
            in_run = true;
        } else if sign.is_alphabetic() {
            in_run = false;
        }
    }
    runs == 1 && (7..=15).contains(&digits)
}

/// The name under which the log has a subject: `SUBJECT@ISSUER`. No local user has one with an `@`. A subject that cannot stand there, because it
/// is long or holds other signs does so as 128 bits of its hash, in letters; an e-mail address is there only
/// if the provider made it the subject.
fn name(subject: &str, settings: &OidcSettings) -> String {
    let label = settings.label();
    let plain = format!("{subject}@{label}");
    // What looks like a hash is hashed too, so that nobody comes under another's.
    let looks_hashed = subject.len() == HASHED && subject.bytes().all(|byte| (b'a'..=b'p').contains(&byte));
    if plain.len() <= LONGEST_NAME && !looks_hashed && check_name("a name", &plain).is_ok() {
        return plain;
    }
    let mut hasher = blake3::Hasher::new();
    // An issuer has no zero byte: it is an address.
    hasher.update(settings.issuer.as_bytes()).update(&[0]).update(subject.as_bytes());
    let hash = hasher.finalize();
    let nibbles = hash.as_bytes().iter().take(HASHED / 2).flat_map(|byte| [byte >> 4, byte & 15]);
    let letters: String = nibbles.map(|nibble| char::from(b'a' + nibble)).collect();
    format!("{letters}@{label}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::settings::tests::good;
    use super::*;

    const NOW_S: i64 = 1_800_000_000;

    fn claims() -> Value {
        json!({
            "iss": good().issuer, "aud": "starling", "sub": "ada", "exp": NOW_S + 300, "nbf": NOW_S, "iat": NOW_S,
            "starling_role": "product", "starling_team": "growth",
        })
    }

    fn admit(claims: &Value) -> Result<Passport, (&'static str, String)> {
        let claims: Claims = serde_json::from_value(claims.clone()).expect("claims");
        claims
            .admit(&good(), ("k", Signed::EdDsa, blake3::hash(b"k")), NOW_S * 1000)
            .map_err(|refusal| (refusal.code, refusal.reason))
    }

    #[test]
    fn a_token_is_good_for_its_issuer_its_audience_and_its_time_and_for_no_other() {
        let passport = admit(&claims()).expect("good");
        let expected = Principal { name: "ada@id.example.com".to_owned(), role: Role::Product, team: "growth".to_owned() };
        assert_eq!((&*passport.who, passport.ends_ms), (&expected, (NOW_S + 300) * 1000));
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            admit(&claims).map(|passport| passport.who.name.clone())
        };
        for good in [json!(["starling"]), json!(["other", "starling"])] {
            assert!(with("aud", good).is_ok());
        }
        // Clocks may differ by the leeway, and by no more.
        for (name, value) in [("exp", NOW_S - 29), ("nbf", NOW_S + 30), ("iat", NOW_S + 30)] {
            assert!(with(name, json!(value)).is_ok(), "{name}");
        }
        for (name, value) in [
            ("iss", json!("https://id.example.com/realms/other")),
            ("iss", json!([good().issuer])),
            ("iss", json!(null)),
            ("aud", json!("other")),
            ("aud", json!(["other"])),
            ("aud", json!([])),
            ("aud", json!(["starling", 7])),
            ("aud", json!({ "starling": true })),
            ("aud", json!(null)),
            ("exp", json!(NOW_S - 30)),
            ("exp", json!((NOW_S + 300).to_string())),
            ("exp", json!(null)),
            ("exp", json!(-1)),
            ("exp", json!(1e300)),
            ("exp", json!(NOW_S + 86_400 + 31)),
            ("nbf", json!(NOW_S + 31)),
            ("nbf", json!("now")),
            ("iat", json!(NOW_S + 31)),
            ("sub", json!("")),
            ("sub", json!(7)),
            ("sub", json!(null)),
        ] {
            assert_eq!(with(name, value.clone()).map_err(|(code, _)| code), Err("28000"), "{name}: {value}");
        }
        for missing in ["iss", "aud", "exp", "sub"] {
            let mut claims = claims();
            claims.as_object_mut().expect("claims").remove(missing);
            assert_eq!(admit(&claims).map_err(|(code, _)| code).err(), Some("28000"), "{missing}");
        }
    }

    #[test]
    fn a_role_is_one_that_there_is_written_as_one_text_or_none() {
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            admit(&claims).map(|passport| passport.who.role)
        };
        for role in Role::ALL {
            assert_eq!(with("starling_role", json!(role.name())), Ok(role));
        }
        for none in [
            json!("root"),
            json!("Product"),
            json!("product "),
            json!("product auditor"),
            json!(["product"]),
            json!({ "product": true }),
            json!(0),
            json!(true),
            json!(null),
            json!(""),
            // Whoever is on this machine: nobody is made it by a token.
            json!("local"),
        ] {
            let (code, reason) = with("starling_role", none.clone()).expect_err("no role");
            assert_eq!(code, "42501", "{none}");
            assert!(!reason.contains("root"), "{reason}");
        }
        // A team stands in SQL and in the log.
        for none in [json!("'; --"), json!("Growth"), json!(["growth"]), json!(""), json!("a".repeat(64)), json!(null)] {
            assert_eq!(with("starling_team", none.clone()).map_err(|(code, _)| code), Err("42501"), "{none}");
        }
        for missing in ["starling_role", "starling_team"] {
            let mut claims = claims();
            claims.as_object_mut().expect("claims").remove(missing);
            assert_eq!(admit(&claims).map_err(|(code, _)| code).err(), Some("42501"), "{missing}");
        }
    }

    #[test]
    fn a_claim_that_is_there_twice_counts_for_nothing() {
        for text in [
            r#"{"starling_role":"product","starling_role":"auditor"}"#,
            r#"{"exp":1,"sub":"ada","exp":2}"#,
            r#"{"sub":"ada","sub":"ada"}"#,
            r#"[]"#,
            r#""product""#,
        ] {
            assert!(serde_json::from_str::<Claims>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn i4_a_name_is_the_issuers_and_holds_no_phone_number() {
        let name = |subject: &str| super::name(subject, &good());
        assert_eq!(name("ada.l"), "ada.l@id.example.com");
        assert_eq!(name("ada@example.com"), "ada@example.com@id.example.com");
        let long = "x".repeat(100);
        let hashed = [
            "google-oauth2|106512345678901234567",
            "auth0|5f7c8ec7c33c6c004bbafe82",
            "a b",
            "ä",
            &long,
            "abcdefghijklmnopabcdefghijklmnop",
        ];
        let names: Vec<String> = hashed.iter().map(|subject| name(subject)).collect();
        for (subject, name) in hashed.iter().zip(&names) {
            assert!(!name.contains(subject) && name.len() == HASHED + 1 + "id.example.com".len(), "{name}");
            assert!(check_name("a name", name).is_ok(), "{name}");
        }
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        let other = OidcSettings { issuer: "https://id.example.com/realms/other".to_owned(), ..good() };
        assert_ne!(super::name(hashed[0], &other), names[0], "another issuer's is somebody else");
    }

    #[test]
    fn i4_a_subject_that_could_be_a_phone_number_comes_in_under_no_name() {
        let with = |subject: &str| {
            let mut claims = claims();
            claims["sub"] = json!(subject);
            admit(&claims)
        };
        for number in [
            "4915112345678",
            "+49 151 1234-5678",
            "tel:+4915112345678",
            "customer-4915112345678@corp",
            "1234567",
            "٤٩١٥١١٢٣٤٥٦٧٨",
        ] {
            let (code, reason) = with(number).expect_err(number);
            assert!(code == "42501" && !reason.contains("1234"), "{number}: {reason}");
        }
        for other in [
            "ada",
            "user-123456",
            "google-oauth2|106512345678901234567",
            "auth0|5f7c8ec7c33c6c004bbafe82",
            "550e8400-e29b-41d4-a716-446655440000",
            "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
        ] {
            assert!(with(other).is_ok(), "{other}");
        }
    }
}
