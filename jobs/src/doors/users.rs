//! Who may come through a door: a TOML file with a name, a role, a team and a verifier for each, never a password.
//!
//! The file is read anew for each login and for each request with a session or a token, so that a user who is added, changed or removed is so at once;
//! only sessions of the PostgreSQL door that are open go on. Only its owner may read it. `decoy` is a secret of its own, from which a name that is not there
//! gets a salt that stays the same.
//!
//! **Tokens** are for programs, over HTTP and over Flight SQL: 32 random bytes, shown once, of which the file keeps a hash and when it ends. Nobody can guess one, so a
//! plain hash is enough; whoever reads the file cannot show what it is the hash of.
//!
//! **Certificates**: a user may have one name, a URI or a DNS name, by which a client's certificate is known to be its own (`tls`).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use starling_query::{Principal, Role};
use zeroize::Zeroizing;

use super::scram::Verifier;
use crate::config::Config;

/// The longest name.
pub(super) const NAME_BYTES: usize = 63;
/// How a token begins, so that whoever finds one knows what it is.
const TOKEN: &str = "starling_";

const HEAD: &str = "# Users of Starling's doors. Written by `starling users`; nobody can log in with what is here, and no password or token is.\n";

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Text {
    decoy: String,
    #[serde(default, rename = "user")]
    users: Vec<Entry>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    role: String,
    team: String,
    verifier: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_ends: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
}

/// A token as it is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) hash: blake3::Hash,
    pub(super) ends: jiff::Timestamp,
}

impl Token {
    /// A new one, with the text that is shown once.
    pub(super) fn new(bytes: &Zeroizing<[u8; 32]>, ends: jiff::Timestamp) -> (Self, Zeroizing<String>) {
        let text = Zeroizing::new(format!("{TOKEN}{}", URL_SAFE_NO_PAD.encode(**bytes)));
        (Self { hash: blake3::hash(text.as_bytes()), ends }, text)
    }
}

/// Somebody who may log in. No `Debug`: it holds a verifier.
pub(super) struct User {
    pub(super) who: Principal,
    pub(super) verifier: Verifier,
    pub(super) token: Option<Token>,
    /// The name in its certificate.
    pub(super) certificate: Option<String>,
}

/// All users. No `Debug`: it holds verifiers.
pub(crate) struct Users {
    pub(super) decoy: [u8; 32],
    pub(super) users: Vec<User>,
}

/// Where the users file is.
pub(crate) fn path(config: &Config) -> PathBuf {
    match config.postgres.users_file.as_str() {
        "" => config.data_dir.join("users.toml"),
        file => PathBuf::from(file),
    }
}

const MAKES_IT: &str = "`starling users add NAME --role product --team TEAM` makes it";

impl Users {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, others than its owner can, or something in it cannot be used: with its line, and without what stands there.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        Self::parse(path, &load(path)?)
    }

    fn parse(path: &Path, text: &str) -> anyhow::Result<Self> {
        let place = path.display();
        let read: Text = toml::from_str(text).map_err(|error| {
            // Its own text may quote a verifier.
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
            anyhow::anyhow!("users file {place}:{line}: this is no list of users; {MAKES_IT}")
        })?;
        let decoy = blake3::Hash::from_hex(&read.decoy).map(|hash| *hash.as_bytes());
        let decoy = decoy.map_err(|_| anyhow::anyhow!("users file {place}: decoy must be 64 hexadecimal digits; {MAKES_IT}"))?;
        let mut users: Vec<User> = Vec::new();
        for (number, Entry { name, role, team, verifier, token_hash, token_ends, certificate }) in (1..).zip(read.users) {
            let fault = |what: &str| anyhow::anyhow!("users file {place}: user {number}: {what}");
            ensure!(is_name(&name), fault("its name must be 1 to 63 of a–z, 0–9, `.`, `-`, `_`"));
            ensure!(users.iter().all(|known| known.who.name != name), fault("there is another one of this name"));
            ensure!(is_name(&team), fault("its team must be 1 to 63 of a–z, 0–9, `.`, `-`, `_`"));
            let role = Role::named(&role).ok_or_else(|| fault(&format!("its role must be one of {}", roles())))?;
            let verifier = Verifier::parse(&verifier)
                .ok_or_else(|| fault("its verifier cannot be used; `starling users add --replace` makes a new one"))?;
            let token = token_of(token_hash.as_deref(), token_ends.as_deref())
                .ok_or_else(|| fault("its token cannot be used; `starling users token` makes a new one"))?;
            if let Some(certificate) = &certificate {
                ensure!(is_certificate(certificate), fault(&format!("its certificate must be {CERTIFICATE}")));
                let taken = users.iter().any(|known| known.certificate.as_ref() == Some(certificate));
                ensure!(!taken, fault("another one has the same certificate"));
            }
            users.push(User { who: Principal { name, role, team }, verifier, token, certificate });
        }
        Ok(Self { decoy, users })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.users.len()
    }

    /// A user's verifier, and who it is. For a name that is not there: a verifier that nobody fits, and nobody.
    pub(crate) fn find(&self, name: &str) -> (Verifier, Option<Principal>) {
        match self.users.iter().find(|user| user.who.name == name) {
            Some(user) => (user.verifier.clone(), Some(user.who.clone())),
            None => (Verifier::decoy(&self.decoy, name), None),
        }
    }

    /// Whose token this is, if it has not ended.
    pub(crate) fn of_token(&self, text: &str, now_ms: i64) -> Option<Principal> {
        // Hashes are compared, so that the time says nothing of how much was right.
        let hash = blake3::hash(text.as_bytes());
        let user = self.users.iter().find(|user| user.token.is_some_and(|token| token.hash == hash))?;
        user.token.filter(|token| now_ms < token.ends.as_millisecond()).map(|_| user.who.clone())
    }

    /// Whose certificate has these names. `None`: nobody's, or that of several.
    pub(crate) fn of_certificate(&self, names: &[String]) -> Option<Principal> {
        let mut own = self.users.iter().filter(|user| user.certificate.as_ref().is_some_and(|name| names.contains(name)));
        let first = own.next()?;
        own.next().is_none().then(|| first.who.clone())
    }

    /// What a session of this user hangs on: it changes with role, team and password. `None`: there is no such user.
    pub(crate) fn mark(&self, name: &str) -> Option<blake3::Hash> {
        let user = self.users.iter().find(|user| user.who.name == name)?;
        let parts = [user.who.name.as_str(), user.who.role.name(), &user.who.team, &user.verifier.text()];
        let mut hasher = blake3::Hasher::new_keyed(&self.decoy);
        for part in parts {
            // No part holds a zero byte.
            hasher.update(part.as_bytes()).update(&[0]);
        }
        Some(hasher.finalize())
    }

    /// Writes the file anew.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let entry = |user: &User| Entry {
            name: user.who.name.clone(),
            role: user.who.role.name().to_owned(),
            team: user.who.team.clone(),
            verifier: user.verifier.text(),
            token_hash: user.token.map(|token| token.hash.to_hex().to_string()),
            token_ends: user.token.map(|token| token.ends.to_string()),
            certificate: user.certificate.clone(),
        };
        let decoy = blake3::Hash::from_bytes(self.decoy).to_hex().to_string();
        let text = toml::to_string(&Text { decoy, users: self.users.iter().map(entry).collect() })?;
        write_secret(path, &Zeroizing::new(format!("{HEAD}{text}")))
            .with_context(|| format!("users file {}: cannot be written", path.display()))
    }
}

/// The users file as a door that is asked all the time reads it: parsed again only when its bytes are others.
pub(crate) struct UsersFile {
    path: PathBuf,
    last: Mutex<Option<(blake3::Hash, Arc<Users>)>>,
}

impl UsersFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, last: Mutex::new(None) }
    }

    /// Whether there is one, readable or not.
    pub(crate) fn is_there(&self) -> bool {
        !matches!(std::fs::symlink_metadata(&self.path), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
    }

    /// All users as of now.
    ///
    /// # Errors
    /// As [`Users::read`].
    pub(crate) fn read(&self) -> anyhow::Result<Arc<Users>> {
        let text = load(&self.path)?;
        let hash = blake3::hash(text.as_bytes());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, users)) = last.as_ref()
            && *known == hash
        {
            return Ok(Arc::clone(users));
        }
        let users = Arc::new(Users::parse(&self.path, &text)?);
        *last = Some((hash, Arc::clone(&users)));
        Ok(users)
    }
}

fn load(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let place = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("users file {place}: cannot be read; {MAKES_IT}"))?;
    let text = Zeroizing::new(text);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(path)?.permissions().mode();
        ensure!(mode & 0o077 == 0, "users file {place}: others may read it; chmod 600 it");
    }
    Ok(text)
}

/// `None`: one is there without the other, or one of them cannot be read.
fn token_of(hash: Option<&str>, ends: Option<&str>) -> Option<Option<Token>> {
    match (hash, ends) {
        (None, None) => Some(None),
        (Some(hash), Some(ends)) => Some(Some(Token { hash: blake3::Hash::from_hex(hash).ok()?, ends: ends.parse().ok()? })),
        _ => None,
    }
}

/// Writes a file that only its owner may read, and that is there whole or not at all.
fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| std::fs::rename(&temporary, path)) {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
}

pub(super) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    !name.is_empty() && name.len() <= NAME_BYTES && name.bytes().all(plain)
}

/// What a name in a certificate is.
pub(super) const CERTIFICATE: &str = "a URI such as spiffe://example.com/ada or a DNS name in small letters, without wildcards";

/// Whether a certificate can have this name in its `subjectAltName`: a URI is compared sign by sign.
pub(super) fn is_certificate(name: &str) -> bool {
    let plain = name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"*\"\\<>".contains(&byte));
    let host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    plain && !name.is_empty() && (name.contains(':') || name.bytes().all(host))
}

pub(super) fn roles() -> String {
    Role::ALL.map(Role::name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        let ada = Principal { name: "ada".to_owned(), role: Role::Product, team: "growth".to_owned() };
        let ends = "2026-04-05T00:00:00Z".parse().expect("a moment");
        let token = Some(Token::new(&Zeroizing::new([9; 32]), ends).0);
        Users {
            decoy: [3; 32],
            users: vec![User { who: ada, verifier: Verifier::of("correct horse", [7; 16]), token, certificate: None }],
        }
    }

    #[test]
    fn what_was_written_is_read_and_only_by_its_owner() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("users.toml");
        users().write(&path).expect("writes");
        let text = std::fs::read_to_string(&path).expect("reads");
        assert!(!text.contains("correct"));
        let read = Users::read(&path).expect("good");
        let (verifier, who) = read.find("ada");
        assert_eq!(who.map(|who| (who.role, who.team)), Some((Role::Product, "growth".to_owned())));
        assert_eq!(verifier.text(), users().find("ada").0.text());
        assert!(read.find("eve").1.is_none() && read.find("eve").0.text() == users().find("eve").0.text());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
            assert!(Users::read(&path).err().expect("refused").to_string().contains("chmod 600"));
        }
    }

    #[test]
    fn a_fault_names_its_place_and_repeats_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("users.toml");
        let good = {
            users().write(&path).expect("writes");
            std::fs::read_to_string(&path).expect("reads")
        };
        let verifier = users().find("ada").0.text();
        for (text, expected) in [
            (good.replace("verifier = ", "verifier = 5 #"), ":"),
            (good.replace("role = \"product\"", "role = \"root\""), "its role must be one of product, privacy"),
            (good.replace(&verifier, "hunter2"), "its verifier cannot be used"),
            (good.replace("name = \"ada\"", "name = \"Ada Lovelace\""), "its name must be"),
            (good.replace("decoy = ", "decoy = \"\" #"), "decoy must be"),
            (good.replace("token_hash = ", "token_hash = \"hunter2\" #"), "its token cannot be used"),
            (good.replace("token_ends = ", "# "), "its token cannot be used"),
            (good.replace("role = \"product\"", "role = \"local\""), "its role must be one of"),
            (format!("{good}\nsurprise = \"hunter2\"\n"), "this is no list of users"),
        ] {
            write_secret(&path, &text).expect("writes");
            let error = format!("{:#}", Users::read(&path).err().expect("refused"));
            assert!(error.contains(expected) && error.contains("users.toml"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains(&verifier[20..]), "{error}");
        }
    }

    #[test]
    fn a_token_is_its_users_until_it_ends_and_no_hash_is_a_token() {
        let users = users();
        let text = Token::new(&Zeroizing::new([9; 32]), jiff::Timestamp::MAX).1;
        let ends_ms = 1_775_347_200_000;
        assert!(text.starts_with("starling_") && text.len() > 50);
        assert_eq!(users.of_token(&text, ends_ms - 1).map(|who| who.name), Some("ada".to_owned()));
        assert!(users.of_token(&text, ends_ms).is_none());
        let hash = blake3::hash(text.as_bytes()).to_hex();
        for wrong in ["", "starling_", &text[..text.len() - 1], hash.as_str()] {
            assert!(users.of_token(wrong, 0).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_session_hangs_on_role_team_and_password() {
        let mark = |change: &dyn Fn(&mut User)| {
            let mut users = users();
            change(&mut users.users[0]);
            users.mark("ada")
        };
        let before = mark(&|_| {});
        assert!(before.is_some() && before == mark(&|user| user.token = None));
        assert_ne!(before, mark(&|user| user.who.role = Role::Auditor));
        assert_ne!(before, mark(&|user| user.who.team = "audit".to_owned()));
        assert_ne!(before, mark(&|user| user.verifier = Verifier::of("correct horse", [8; 16])));
        assert_eq!(mark(&|user| user.who.name = "bob".to_owned()), None);
    }

    #[test]
    fn the_file_is_parsed_again_when_it_is_another() {
        let dir = tempfile::tempdir().expect("dir");
        let file = UsersFile::new(dir.path().join("users.toml"));
        assert!(!file.is_there() && file.read().is_err());
        users().write(&file.path).expect("writes");
        let (first, again) = (file.read().expect("good"), file.read().expect("good"));
        assert!(file.is_there() && Arc::ptr_eq(&first, &again));
        Users { decoy: [3; 32], users: Vec::new() }.write(&file.path).expect("writes");
        assert!(file.read().expect("good").mark("ada").is_none());
        write_secret(&file.path, "nonsense").expect("writes");
        assert!(file.read().is_err(), "what was read before does not stand in for it");
    }
}
