//! An identity provider as far as a door sees one: three keys, tokens signed with them, and an address that tells the public halves.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

use crate::support::succeed;

pub(crate) const ISSUER: &str = "https://id.example.com/realms/flock";
pub(crate) const AUDIENCE: &str = "starling-doors";

pub(crate) fn part(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// What the address says.
#[derive(Default)]
struct Told {
    keys: Mutex<Vec<Value>>,
    asked: AtomicUsize,
    down: AtomicBool,
    slow: AtomicBool,
}

pub(crate) struct Provider {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    told: Arc<Told>,
    address: String,
}

impl Provider {
    /// With all its keys published. Its address answers as long as the test runs.
    pub(crate) fn start() -> Self {
        let random = SystemRandom::new();
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("rsa.der");
        let mut openssl = Command::new("openssl");
        openssl.args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-outform", "DER", "-out"]);
        succeed(openssl.arg(&file));
        let der = std::fs::read(&file).expect("reads");
        // Versions of openssl differ in what they take DER for.
        let rsa = RsaKeyPair::from_pkcs8(&der).or_else(|_| RsaKeyPair::from_der(&der)).expect("a key");
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("random");
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).expect("a key");
        let document = Ed25519KeyPair::generate_pkcs8(&random).expect("random");
        let ed = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key");
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("an address").to_string();
        let told = Arc::new(Told::default());
        let theirs = Arc::clone(&told);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.push(byte[0]);
                }
                theirs.asked.fetch_add(1, Ordering::SeqCst);
                if theirs.slow.load(Ordering::SeqCst) {
                    std::thread::sleep(std::time::Duration::from_secs(2));
                }
                let body = json!({ "keys": &*theirs.keys.lock().expect("keys") }).to_string();
                let status = if theirs.down.load(Ordering::SeqCst) { "503 Service Unavailable" } else { "200 OK" };
                let _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            }
        });
        let provider = Self { rsa, ec, ed, told, address };
        provider.publish(&["rsa", "ec", "ed"]);
        provider
    }

    /// The settings of a server that takes its tokens.
    pub(crate) fn settings(&self) -> String {
        format!("[oidc]\nissuer = {ISSUER:?}\naudience = {AUDIENCE:?}\nkeys_url = \"http://{}/keys\"\n", self.address)
    }

    /// Tells of these keys and of no others, from the next fetch on.
    pub(crate) fn publish(&self, kids: &[&str]) {
        *self.told.keys.lock().expect("keys") = kids.iter().map(|kid| self.jwk(kid)).collect();
    }

    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let point = self.ec.public_key().as_ref();
        match kid {
            "rsa" => {
                let public: PublicKeyComponents<Vec<u8>> = self.rsa.public().into();
                json!({ "kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": part(public.n), "e": part(public.e) })
            }
            "ec" => json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": part(&point[1..33]), "y": part(&point[33..]) }),
            _ => json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": part(self.ed.public_key()) }),
        }
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.told.down.store(down, Ordering::SeqCst);
    }

    /// Answers two seconds after it was asked, or at once.
    pub(crate) fn set_slow(&self, slow: bool) {
        self.told.slow.store(slow, Ordering::SeqCst);
    }

    /// How often its address was asked.
    pub(crate) fn asked(&self) -> usize {
        self.told.asked.load(Ordering::SeqCst)
    }

    /// A token with this head and body as they are, signed with the key that is for its `alg`, else with the Ed25519 key.
    pub(crate) fn signed(&self, head: &Value, body: &str) -> String {
        let message = format!("{}.{}", part(head.to_string()), part(body));
        let random = SystemRandom::new();
        let signature = match head["alg"].as_str() {
            Some("RS256") => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).expect("signs");
                signature
            }
            Some("ES256") => self.ec.sign(&random, message.as_bytes()).expect("signs").as_ref().to_vec(),
            _ => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", part(signature))
    }

    /// A token of these claims, by the key of this name.
    pub(crate) fn token(&self, kid: &str, claims: &Value) -> String {
        let algorithm = match kid {
            "rsa" => "RS256",
            "ec" => "ES256",
            _ => "EdDSA",
        };
        self.signed(&json!({ "alg": algorithm, "kid": kid, "typ": "JWT" }), &claims.to_string())
    }

    /// A good token of somebody in this role.
    pub(crate) fn token_of(&self, subject: &str, role: &str, team: &str) -> String {
        self.token("rsa", &claims(subject, role, team))
    }
}

/// What a good token says, for five minutes.
pub(crate) fn claims(subject: &str, role: &str, team: &str) -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now_s(), "nbf": now_s(), "exp": now_s() + 300,
        "starling_role": role, "starling_team": team,
    })
}
