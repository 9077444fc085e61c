//! Tokens as attackers write them. RS256 and keys from an address are in the doors' own tests, where there is somebody to make such keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::settings::tests::good;
use super::*;

const NOW_S: i64 = 1_800_000_000;

fn part(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A provider with a key of each kind that ring makes, and a set of them in a file.
struct Provider {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    other: Ed25519KeyPair,
    dir: tempfile::TempDir,
}

impl Provider {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed = || {
            let document = Ed25519KeyPair::generate_pkcs8(&random).expect("random");
            Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key")
        };
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("random");
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).expect("a key");
        let provider = Self { ed: ed(), ec, other: ed(), dir: tempfile::tempdir().expect("dir") };
        provider.publish(&[provider.ed_jwk(), provider.ec_jwk(), provider.other_jwk("other")]);
        provider
    }

    fn ed_jwk(&self) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": part(self.ed.public_key()) })
    }

    fn other_jwk(&self, kid: &str) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": part(self.other.public_key()) })
    }

    fn ec_jwk(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "alg": "ES256", "x": part(&point[1..33]), "y": part(&point[33..]) })
    }

    fn publish(&self, keys: &[Value]) {
        std::fs::write(self.dir.path().join("keys.json"), json!({ "keys": keys }).to_string()).expect("writes");
    }

    fn oidc(&self, change: impl Fn(&mut OidcSettings)) -> Oidc {
        let mut settings = OidcSettings { keys_file: self.dir.path().join("keys.json").display().to_string(), ..good() };
        change(&mut settings);
        Oidc::open(&settings).expect("good").expect("wanted")
    }

    /// A token with this head and body, as they are, signed by the Ed25519 key.
    fn signed(&self, head: &str, body: &str) -> String {
        let message = format!("{}.{}", part(head), part(body));
        let signature = self.ed.sign(message.as_bytes());
        format!("{message}.{}", part(signature))
    }

    fn token(&self) -> String {
        self.signed(&head("EdDSA", "ed"), &claims().to_string())
    }
}

fn head(algorithm: &str, kid: &str) -> String {
    json!({ "typ": "JWT", "alg": algorithm, "kid": kid }).to_string()
}

fn claims() -> Value {
    json!({
        "iss": good().issuer, "aud": "starling", "sub": "ada", "exp": NOW_S + 300, "iat": NOW_S,
        "starling_role": "product", "starling_team": "growth",
    })
}

fn told(oidc: &Oidc, token: &str) -> Result<String, &'static str> {
    oidc.recognise(token, NOW_S * 1000).map(|passport| passport.who.name.clone()).map_err(|refusal| refusal.code)
}

#[test]
fn a_token_of_the_provider_lets_somebody_in_by_each_kind_of_key() {
    let provider = Provider::new();
    let oidc = provider.oidc(|_| {});
    assert_eq!(told(&oidc, &provider.token()), Ok("ada@id.example.com".to_owned()));
    let message = format!("{}.{}", part(head("ES256", "ec")), part(claims().to_string()));
    let signature = provider.ec.sign(&SystemRandom::new(), message.as_bytes()).expect("signs");
    let by_curve = format!("{message}.{}", part(signature));
    assert_eq!(told(&oidc, &by_curve), Ok("ada@id.example.com".to_owned()));
    // What the settings do not name is not taken, whatever keys there are.
    let only_curve = provider.oidc(|settings| settings.algorithms = vec!["ES256".to_owned()]);
    assert!(told(&only_curve, &by_curve).is_ok() && told(&only_curve, &provider.token()).is_err());
    assert!(is_one(&by_curve) && !is_one("starling_AAAA") && !is_one("") && !is_one("a.b"));
}

#[test]
fn an_unsigned_token_and_one_signed_with_a_public_key_as_a_secret_are_nobodys() {
    let provider = Provider::new();
    let oidc = provider.oidc(|_| {});
    let body = part(claims().to_string());
    for algorithm in ["none", "None", "NONE", "nOnE", "HS256", "HS384", "HS512", "RS512", "PS256", "ES384", "", "ES256K"] {
        let message = format!("{}.{body}", part(head(algorithm, "ed")));
        for signature in [String::new(), part(provider.ed.sign(message.as_bytes()))] {
            assert_eq!(told(&oidc, &format!("{message}.{signature}")), Err("28000"), "{algorithm}");
        }
    }
    // The public key is known to everybody; whoever takes it for a secret takes everybody's word.
    for (kid, public) in [("ed", provider.ed.public_key().as_ref()), ("ec", provider.ec.public_key().as_ref())] {
        let message = format!("{}.{body}", part(head("HS256", kid)));
        for secret in [public.to_vec(), part(public).into_bytes()] {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
            let tag = ring::hmac::sign(&key, message.as_bytes());
            assert_eq!(told(&oidc, &format!("{message}.{}", part(tag))), Err("28000"), "{kid}");
        }
    }
    // Nor is one key another's algorithm.
    for (algorithm, kid) in [("ES256", "ed"), ("RS256", "ed"), ("EdDSA", "ec")] {
        assert_eq!(
            told(&oidc, &provider.signed(&head(algorithm, kid), &claims().to_string())),
            Err("28000"),
            "{algorithm} {kid}"
        );
    }
}

#[test]
fn no_byte_of_a_token_can_be_changed_and_no_key_stands_in_for_another() {
    let provider = Provider::new();
    let oidc = provider.oidc(|_| {});
    let token = provider.token();
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("ASCII");
        assert_eq!(told(&oidc, &changed), Err("28000"), "{at}");
    }
    let parts: Vec<&str> = token.split('.').collect();
    for altered in [
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{token}."),
        format!("{token}="),
        format!(" {token}"),
        format!("{}.{}.{}", parts[0], parts[2], parts[1]),
        format!("{}.{}.{}", parts[0], part(claims().to_string().replace("product", "auditor")), parts[2]),
    ] {
        assert_eq!(told(&oidc, &altered), Err("28000"), "{altered}");
    }
    // The name of a key that is there and has not signed it, of none, and no name.
    for kid in ["other", "nobody", "", "../ed", "ed\u{0}"] {
        assert_eq!(told(&oidc, &provider.signed(&head("EdDSA", kid), &claims().to_string())), Err("28000"), "{kid}");
    }
    for head in [
        r#"{"alg":"EdDSA"}"#.to_owned(),
        r#"{"alg":"EdDSA","kid":7}"#.to_owned(),
        // A key that the token brings with it is no key.
        json!({ "alg": "EdDSA", "kid": "mine", "jwk": provider.ed_jwk() }).to_string(),
        r#"{"alg":"EdDSA","kid":"mine","jku":"https://evil.example/keys"}"#.to_owned(),
    ] {
        assert_eq!(told(&oidc, &provider.signed(&head, &claims().to_string())), Err("28000"), "{head}");
    }
}

#[test]
fn a_head_that_asks_for_more_than_is_known_here_is_refused() {
    let provider = Provider::new();
    let oidc = provider.oidc(|_| {});
    let with = |head: &str| told(&oidc, &provider.signed(head, &claims().to_string()));
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
        assert!(with(&json!({ "alg": "EdDSA", "kid": "ed", "typ": typ }).to_string()).is_ok(), "{typ}");
    }
    assert!(with(r#"{"alg":"EdDSA","kid":"ed"}"#).is_ok());
    for bad in [
        r#"{"alg":"EdDSA","kid":"ed","crit":["b64"],"b64":false}"#,
        r#"{"alg":"EdDSA","kid":"ed","crit":[]}"#,
        r#"{"alg":"EdDSA","kid":"ed","crit":"exp"}"#,
        r#"{"alg":"EdDSA","kid":"ed","zip":"DEF"}"#,
        r#"{"alg":"EdDSA","kid":"ed","typ":"logout+jwt"}"#,
        r#"{"alg":"EdDSA","kid":"ed","typ":"dpop+jwt"}"#,
        r#"{"alg":"none","kid":"ed","alg":"EdDSA"}"#,
        r#"{"alg":"EdDSA","kid":"other","kid":"ed"}"#,
        r#"["EdDSA"]"#,
        "",
    ] {
        assert_eq!(with(bad), Err("28000"), "{bad}");
    }
}

#[test]
fn a_token_that_is_huge_or_says_something_twice_is_refused() {
    let provider = Provider::new();
    let oidc = provider.oidc(|_| {});
    let with = |body: &str| told(&oidc, &provider.signed(&head("EdDSA", "ed"), body));
    let mut long = claims();
    long["more"] = json!("x".repeat(4_000));
    assert!(with(&long.to_string()).is_ok());
    long["more"] = json!("x".repeat(TOKEN_BYTES));
    assert_eq!(with(&long.to_string()), Err("28000"));
    assert_eq!(told(&oidc, &format!("{}.{}.{}", "A".repeat(1 << 20), "A", "A")), Err("28000"));
    let deep = format!("{}\"more\":{}{}}}", "{", "[".repeat(2_000), "]".repeat(2_000));
    assert_eq!(with(&deep), Err("28000"));
    let twice = claims().to_string().replacen('{', r#"{"starling_role":"auditor","#, 1);
    assert!(twice.matches("starling_role").count() == 2 && with(&twice) == Err("28000"));
    let twice = claims().to_string().replacen('{', &format!(r#"{{"exp":{},"#, NOW_S + 60), 1);
    assert_eq!(with(&twice), Err("28000"));
}

#[test]
fn i4_no_refusal_repeats_what_a_token_says() {
    let provider = Provider::new();
    let oidc = provider.oidc(|_| {});
    for (name, value) in [("starling_role", "hunter2"), ("starling_team", "Hunter2!"), ("iss", "hunter2"), ("aud", "hunter2")] {
        let mut claims = claims();
        claims[name] = json!(value);
        let token = provider.signed(&head("EdDSA", "ed"), &claims.to_string());
        let Refusal { code, reason, hint, .. } = oidc.recognise(&token, NOW_S * 1000).expect_err("refused");
        let text = format!("{code} {reason} {hint}");
        assert!(!text.to_lowercase().contains("hunter2"), "{text}");
        assert!(!hint.is_empty(), "{reason}");
    }
}

#[test]
fn what_goes_on_for_long_ends_with_the_token_or_with_its_key() {
    let provider = Provider::new();
    let oidc = provider.oidc(|_| {});
    let passport = oidc.recognise(&provider.token(), NOW_S * 1000).expect("good");
    assert!(oidc.still(&passport, (NOW_S + 300) * 1000 - 1) && !oidc.still(&passport, (NOW_S + 300) * 1000));
    provider.publish(&[provider.other_jwk("other")]);
    assert!(!oidc.still(&passport, NOW_S * 1000) && told(&oidc, &provider.token()) == Err("28000"));
    // The provider takes another key under the old name.
    provider.publish(&[provider.other_jwk("ed")]);
    assert!(told(&oidc, &provider.token()) == Err("28000") && !oidc.still(&passport, NOW_S * 1000));
    provider.publish(&[provider.ed_jwk()]);
    assert!(told(&oidc, &provider.token()).is_ok());
    std::fs::remove_file(provider.dir.path().join("keys.json")).expect("removes");
    assert_eq!(told(&oidc, &provider.token()), Err("58030"), "nobody, and it is not the token's fault");
}
