//! Keys of a provider: a JSON Web Key Set (RFC 7517) from a file, from an address, or from both.
//!
//! The file is read at each call and parsed when its bytes are others, so that a key taken out of it is good for nothing at once. What the address
//! said is kept: asked anew after an hour, behind the backs of those who come with known keys, and before them after two, so that nobody comes in on what
//! was said long ago while the address would say otherwise; at once, and at most once a minute, when a token names a key that is not known; and good
//! for a day if the address cannot be reached. Who asks may hang up: what was asked goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use reqwest::{Certificate, Client, Url};
use serde_json::Value;

use super::Signed;
use super::settings::OidcSettings;
use crate::doors::Refusal;
use crate::receivers::wire;

/// Longest set, in bytes, and the most keys of one.
const SET_BYTES: usize = 256 * 1024;
const MOST: usize = 128;
/// How long a fetch may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two fetches, whatever is asked for.
const PAUSE: Duration = Duration::from_secs(60);
/// After so long the address is asked anew.
const FRESH: Duration = Duration::from_secs(3600);
/// After so long nobody comes in before it was asked.
const STALE: Duration = Duration::from_secs(2 * 3600);
/// After so long without an answer its keys are good for nothing.
const LAST: Duration = Duration::from_secs(24 * 3600);

/// A key, and what tells it from another one of its name.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) key: DecodingKey,
    pub(super) mark: blake3::Hash,
}

/// Keys by name and algorithm.
#[derive(Default)]
struct Set(BTreeMap<(String, Signed), Key>);

impl Set {
    /// Reads a set. Keys that are not for signatures of this kind are left out.
    ///
    /// # Errors
    /// What is no set, holds a private key, or has two keys of one name.
    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        // Its own text may quote what stands there.
        let text: Value = serde_json::from_slice(bytes).ok().context("this is no JSON Web Key Set")?;
        let keys = text.get("keys").and_then(Value::as_array).context("this is no JSON Web Key Set: it has no `keys`")?;
        ensure!(keys.len() <= MOST, "there are more than {MOST} keys in it");
        let mut set = BTreeMap::new();
        for key in keys {
            ensure!(key.get("d").is_none(), "there is a private key in it: publish the public ones, and make new ones");
            let Ok(jwk) = serde_json::from_value::<Jwk>(key.clone()) else { continue };
            let Some((name, signed, of)) = usable(&jwk) else { continue };
            let key = Key { key: of, mark: blake3::hash(key.to_string().as_bytes()) };
            ensure!(set.insert((name, signed), key).is_none(), "two of its keys have one name");
        }
        Ok(Self(set))
    }
}

/// A key for signatures of a kind that is taken: its name, the kind, and the key.
fn usable(jwk: &Jwk) -> Option<(String, Signed, DecodingKey)> {
    let signed = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Signed::Rs256,
        AlgorithmParameters::EllipticCurve(point) if point.curve == EllipticCurve::P256 => Signed::Es256,
        AlgorithmParameters::OctetKeyPair(point) if point.curve == EllipticCurve::Ed25519 => Signed::EdDsa,
        _ => return None,
    };
    let common = &jwk.common;
    let for_signatures = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let of_kind = common.key_algorithm.is_none_or(|algorithm| algorithm == signed.algorithm().into());
    let name = common.key_id.clone().filter(|name| !name.is_empty() && for_signatures && of_kind)?;
    Some((name, signed, DecodingKey::from_jwk(jwk).ok()?))
}

/// What to do about a key before a token of it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing.
    GoOn,
    /// Ask anew, and wait for nothing.
    AskBehind,
    /// Ask, and wait for what comes.
    AskFirst,
}

/// What is known of an address.
#[derive(Default)]
struct Fetched {
    set: Arc<Set>,
    /// When it last answered with a set.
    answered: Option<Instant>,
    /// When it was last asked.
    asked: Option<Instant>,
}

impl Fetched {
    fn find(&self, kid: &str, signed: Signed, now: Instant) -> Option<Key> {
        let lives = self.answered.is_some_and(|answered| now.saturating_duration_since(answered) < LAST);
        self.set.0.get(&(kid.to_owned(), signed)).filter(|_| lives).cloned()
    }

    fn step(&self, kid: &str, signed: Signed, now: Instant) -> Step {
        let since = |moment: Option<Instant>| moment.map_or(Duration::MAX, |moment| now.saturating_duration_since(moment));
        let may_ask = since(self.asked) >= PAUSE;
        match (self.find(kid, signed, now), may_ask) {
            (None, true) => Step::AskFirst,
            (Some(_), true) if since(self.answered) >= STALE => Step::AskFirst,
            (Some(_), true) if since(self.answered) >= FRESH => Step::AskBehind,
            _ => Step::GoOn,
        }
    }
}

struct File {
    path: PathBuf,
    last: Mutex<Option<(blake3::Hash, Arc<Set>)>>,
}

impl File {
    fn read(&self) -> anyhow::Result<Arc<Set>> {
        let place = self.path.display();
        let bytes = std::fs::read(&self.path).with_context(|| format!("oidc.keys_file {place}: cannot be read"))?;
        ensure!(bytes.len() <= SET_BYTES, "oidc.keys_file {place}: it is longer than {SET_BYTES} bytes");
        let hash = blake3::hash(&bytes);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, set)) = last.as_ref()
            && *known == hash
        {
            return Ok(Arc::clone(set));
        }
        let set = Arc::new(Set::parse(&bytes).with_context(|| format!("oidc.keys_file {place}"))?);
        *last = Some((hash, Arc::clone(&set)));
        Ok(set)
    }
}

struct Address {
    url: Url,
    client: Client,
    fetched: Mutex<Fetched>,
    /// Whoever asks holds it, so that those who need the same answer wait for one.
    asking: tokio::sync::Mutex<()>,
}

/// All keys there are.
pub(super) struct Keys {
    file: Option<File>,
    address: Option<Address>,
}

impl Keys {
    /// # Errors
    /// A file of keys or certificates that cannot be used.
    pub(super) fn open(settings: &OidcSettings) -> anyhow::Result<Self> {
        let file =
            (!settings.keys_file.is_empty()).then(|| File { path: PathBuf::from(&settings.keys_file), last: Mutex::new(None) });
        if let Some(file) = &file {
            file.read()?;
        }
        let address = if settings.keys_url.is_empty() { None } else { Some(Address::open(settings)?) };
        Ok(Self { file, address })
    }

    /// The key of this name for this algorithm, if it is known.
    ///
    /// # Errors
    /// 58030 where the file cannot be used: what it said before does not stand in for it.
    pub(super) fn find(&self, kid: &str, signed: Signed, now: Instant) -> Result<Option<Key>, Refusal> {
        if let Some(file) = &self.file {
            let set = file.read().map_err(|error| {
                tracing::error!(error = format!("{error:#}"), "nobody can be recognised by a token of [oidc]");
                Refusal::new("58030", "the keys of [oidc] cannot be used", "see the log of `starling serve`")
            })?;
            if let Some(key) = set.0.get(&(kid.to_owned(), signed)) {
                return Ok(Some(key.clone()));
            }
        }
        Ok(self.address.as_ref().and_then(|address| address.known().find(kid, signed, now)))
    }

    /// Asks the address where that could bring this key, or is due.
    pub(super) async fn prepare(keys: &Arc<Self>, kid: &str, signed: Signed, now: Instant) {
        let Some(address) = &keys.address else { return };
        if keys.file.as_ref().is_some_and(|file| file.read().is_ok_and(|set| set.0.contains_key(&(kid.to_owned(), signed)))) {
            return;
        }
        let step = address.known().step(kid, signed, now);
        match step {
            Step::GoOn => {
                // Somebody may be asking for it at this moment.
                if address.known().find(kid, signed, now).is_none() {
                    drop(address.asking.lock().await);
                }
            }
            Step::AskFirst | Step::AskBehind => {
                let (keys, kid) = (Arc::clone(keys), kid.to_owned());
                // A task of its own: if whoever asks first hangs up, the minute is not lost to all others.
                let asked = tokio::spawn(async move {
                    if let Some(address) = &keys.address {
                        address.ask(&kid, signed).await;
                    }
                });
                if step == Step::AskFirst {
                    let _ = asked.await;
                }
            }
        }
    }
}

impl Address {
    fn open(settings: &OidcSettings) -> anyhow::Result<Self> {
        let url = Url::parse(&settings.keys_url).ok().context("oidc.keys_url: no address")?;
        let mut client = wire::builder().timeout(PATIENCE);
        let file = &settings.keys_ca_file;
        if !file.is_empty() {
            let pem = std::fs::read(file).with_context(|| format!("oidc.keys_ca_file {file}: cannot be read"))?;
            let certificates = Certificate::from_pem_bundle(&pem).ok().filter(|certificates| !certificates.is_empty());
            let certificates =
                certificates.with_context(|| format!("oidc.keys_ca_file {file}: there is no certificate in it"))?;
            client = certificates
                .into_iter()
                .fold(client.tls_built_in_root_certs(false), |client, one| client.add_root_certificate(one));
        }
        // Its own error may quote an address.
        let client = client.build().ok().context("this machine's certificates cannot be loaded for oidc.keys_url")?;
        Ok(Self { url, client, fetched: Mutex::default(), asking: tokio::sync::Mutex::default() })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Fetched> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, kid: &str, signed: Signed) {
        let _asking = self.asking.lock().await;
        {
            let mut known = self.known();
            let now = Instant::now();
            // Whoever was before may have brought it, or asked in vain.
            if known.step(kid, signed, now) == Step::GoOn {
                return;
            }
            known.asked = Some(now);
        }
        match self.fetch().await {
            Ok(set) => {
                tracing::info!(keys = set.0.len(), "the keys of oidc.keys_url were fetched");
                let mut known = self.known();
                known.set = Arc::new(set);
                known.answered = Some(Instant::now());
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the keys of oidc.keys_url cannot be fetched: those that are known go on for a day, others are refused"
                );
            }
        }
    }

    async fn fetch(&self) -> anyhow::Result<Set> {
        // The text of reqwest's errors has the address in it.
        let answer = self.client.get(self.url.clone()).send().await;
        let mut answer =
            answer.map_err(|error| anyhow::anyhow!(if error.is_timeout() { "no answer in time" } else { "no connection" }))?;
        ensure!(answer.status().is_success(), "HTTP {}", answer.status().as_u16());
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.ok().context("the answer broke off")? {
            ensure!(bytes.len() + piece.len() <= SET_BYTES, "the answer is longer than {SET_BYTES} bytes");
            bytes.extend_from_slice(&piece);
        }
        Set::parse(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::settings::tests::good;
    use super::*;

    fn ed(kid: &str) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
    }

    fn names(keys: &Value) -> anyhow::Result<Vec<String>> {
        let set = Set::parse(keys.to_string().as_bytes())?;
        Ok(set.0.keys().map(|(name, signed)| format!("{name}:{}", signed.name())).collect())
    }

    #[test]
    fn only_public_keys_for_signatures_of_a_known_kind_are_taken() {
        let point = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        let ec = |curve: &str| json!({ "kty": "EC", "crv": curve, "kid": curve, "x": point, "y": point });
        let with = |name: &str, value: Value| {
            let mut key = ed("other");
            key[name] = value;
            key
        };
        let keys = json!({ "keys": [
            ed("a"), ec("P-256"), ec("P-384"), json!({ "kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB" }),
            json!({ "kty": "oct", "kid": "secret", "k": "AQAB" }), json!({ "kty": "new", "kid": "new" }), json!(7),
            with("use", json!("enc")), with("alg", json!("ES256")), with("key_ops", json!(["sign"])), with("kid", json!("")),
            with("kid", json!(null)),
        ] });
        assert_eq!(names(&keys).expect("a set"), ["P-256:ES256", "a:EdDSA", "r:RS256"]);
        let mut named = ed("b");
        named["use"] = json!("sig");
        named["alg"] = json!("EdDSA");
        named["key_ops"] = json!(["verify"]);
        assert_eq!(names(&json!({ "keys": [named] })).expect("a set"), ["b:EdDSA"]);
        for (bad, expected) in [
            (json!({}), "no `keys`"),
            (json!([]), "no `keys`"),
            (json!({ "keys": [ed("a"), ed("a")] }), "one name"),
            (json!({ "keys": [with("d", json!("hunter2"))] }), "private key"),
            (json!({ "keys": vec![ed("a"); MOST + 1] }), "more than"),
        ] {
            let error = format!("{:#}", names(&bad).expect_err("refused"));
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_address_is_asked_once_a_minute_and_known_keys_outlive_it_by_a_day() {
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let mut known = Fetched::default();
        let step = |known: &Fetched, kid: &str, seconds: u64| known.step(kid, Signed::EdDsa, after(seconds));
        assert_eq!(step(&known, "a", 0), Step::AskFirst, "nothing is known yet");
        known.asked = Some(after(0));
        for (seconds, expected) in [(1, Step::GoOn), (59, Step::GoOn), (60, Step::AskFirst)] {
            assert_eq!(step(&known, "a", seconds), expected, "it did not answer, {seconds} s ago");
        }
        known.set = Arc::new(Set::parse(json!({ "keys": [ed("a")] }).to_string().as_bytes()).expect("a set"));
        known.answered = Some(after(0));
        for (kid, seconds, expected) in [
            ("a", 61, Step::GoOn),
            ("b", 59, Step::GoOn),
            ("b", 60, Step::AskFirst),
            ("a", 3_599, Step::GoOn),
            ("a", 3_600, Step::AskBehind),
            ("a", 7_199, Step::AskBehind),
            ("a", 7_200, Step::AskFirst),
            ("a", 86_400, Step::AskFirst),
        ] {
            assert_eq!(step(&known, kid, seconds), expected, "{kid} after {seconds} s");
        }
        // It is down: it is not asked all the time, and who is known waits for a try once a minute.
        known.asked = Some(after(7_200));
        assert_eq!((step(&known, "a", 7_259), step(&known, "a", 7_260)), (Step::GoOn, Step::AskFirst));
        let is_good = |seconds: u64| known.find("a", Signed::EdDsa, after(seconds)).is_some();
        assert!(is_good(86_399) && !is_good(86_400));
        assert!(known.find("a", Signed::Rs256, after(1)).is_none(), "a key is for its own algorithm");
    }

    #[test]
    fn a_key_that_leaves_the_file_is_good_for_nothing_at_once() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("keys.json");
        let write = |text: &str| std::fs::write(&path, text).expect("writes");
        let settings = OidcSettings { keys_file: path.display().to_string(), ..good() };
        assert!(Keys::open(&settings).is_err(), "it is not there");
        write(&json!({ "keys": [ed("a")] }).to_string());
        let keys = Keys::open(&settings).expect("a set");
        let find = |kid: &str| keys.find(kid, Signed::EdDsa, Instant::now()).map(|key| key.is_some()).map_err(|r| r.code);
        assert_eq!((find("a"), find("b")), (Ok(true), Ok(false)));
        write(&json!({ "keys": [ed("b")] }).to_string());
        assert_eq!((find("a"), find("b")), (Ok(false), Ok(true)));
        write("nonsense");
        assert_eq!((find("a"), find("b")), (Err("58030"), Err("58030")), "what was read before does not stand in for it");
    }
}
