//! `starling users …`: who may log in, and their tokens.
//!
//! A command that changes the users file holds a lock beside it from the reading to the writing, so that none undoes what another has done. A password is
//! asked for before that: nobody waits for somebody at a keyboard.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use starling_query::{Principal, Role};
use starling_schemas::time::{Clock, Entropy};
use zeroize::Zeroizing;

use super::scram::{SALT_BYTES, Verifier};
use super::users::{CERTIFICATE, NAME_BYTES, Token, User, Users, is_certificate, is_name, path, roles};
use crate::cli::UsersCommand;
use crate::config::Config;

/// The shortest password, in characters.
const SHORTEST: usize = 12;

/// Carries out one of the commands, and says what was done.
///
/// # Errors
/// A name, role or password that cannot be used, or a file that cannot be read or written.
pub fn tell(config: &Config, command: &UsersCommand, clock: &dyn Clock, entropy: &dyn Entropy) -> anyhow::Result<String> {
    let path = path(config);
    match command {
        UsersCommand::List => {
            let users = Users::read(&path)?;
            let mut text = format!("{:<24} {:<10} {:<24} {:<24} certificate\n", "name", "role", "team", "token until (UTC)");
            for User { who, token, certificate, .. } in &users.users {
                let until = token.map_or("-".to_owned(), |token| crate::status::timestamp(token.ends.as_millisecond()));
                let certificate = certificate.as_deref().unwrap_or("-");
                let _ = writeln!(text, "{:<24} {:<10} {:<24} {until:<24} {certificate}", who.name, who.role.name(), who.team);
            }
            Ok(if users.users.is_empty() { "No users.\n".to_owned() } else { text })
        }
        UsersCommand::Add { name, role, team, replace } => {
            ensure!(is_name(name), "NAME must be 1 to {NAME_BYTES} of a–z, 0–9, `.`, `-`, `_`");
            ensure!(is_name(team), "--team must be 1 to {NAME_BYTES} of a–z, 0–9, `.`, `-`, `_`");
            let role = Role::named(role).with_context(|| format!("--role must be one of {}", roles()))?;
            if path.exists() {
                // So that nobody types a password for nothing; what counts is how it is once the file is held.
                position(&Users::read(&path)?, name, *replace)?;
            }
            if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                ensure!(folder.is_dir(), "users file {}: its folder is not there", path.display());
            }
            let password = password()?;
            let mut salt = [0; SALT_BYTES];
            entropy.fill(&mut salt).context("no randomness for a salt")?;
            let who = Principal { name: name.clone(), role, team: team.clone() };
            let user = User { who, verifier: Verifier::of(&password, salt), token: None, certificate: None };
            let _held = hold(&path)?;
            let mut users = if path.exists() {
                Users::read(&path)?
            } else {
                let mut decoy = [0; 32];
                entropy.fill(&mut decoy).context("no randomness for the users file")?;
                Users { decoy, users: Vec::new() }
            };
            match position(&users, name, *replace)? {
                Some(at) => users.users[at] = user,
                None => users.users.push(user),
            }
            users.write(&path)?;
            Ok(format!("{name} may log in, as {} of team {team}.\n", role.name()))
        }
        UsersCommand::Token { name, days, revoke } => {
            let (_held, mut users) = read_held(&path)?;
            let user = users.users.iter_mut().find(|user| user.who.name == *name).context(NO_SUCH)?;
            if *revoke {
                ensure!(user.token.take().is_some(), "{name} has no token");
                users.write(&path)?;
                return Ok(format!("The token of {name} is good for nothing any more.\n"));
            }
            let mut bytes = Zeroizing::new([0; 32]);
            entropy.fill(&mut *bytes).context("no randomness for a token")?;
            let ends_ms = clock.now_ms().saturating_add(i64::from(*days) * 86_400_000);
            let ends = jiff::Timestamp::from_millisecond(ends_ms).context("--days: too many")?;
            let (token, text) = Token::new(&bytes, ends);
            user.token = Some(token);
            users.write(&path)?;
            Ok(format!("{}\n", text.as_str()))
        }
        UsersCommand::Certificate { name, subject, revoke } => {
            if let Some(subject) = subject {
                ensure!(is_certificate(subject), "SUBJECT must be {CERTIFICATE}");
            }
            let (_held, mut users) = read_held(&path)?;
            let taken = |user: &User| user.who.name != *name && subject.is_some() && user.certificate == *subject;
            ensure!(!users.users.iter().any(taken), "somebody else has this certificate");
            let user = users.users.iter_mut().find(|user| user.who.name == *name).context(NO_SUCH)?;
            ensure!(!revoke || user.certificate.is_some(), "{name} has no certificate");
            user.certificate.clone_from(subject);
            users.write(&path)?;
            Ok(match subject {
                Some(_) => {
                    format!("{name} may come with a certificate of this name, where tls.client_ca_file names its authority.\n")
                }
                None => format!("No certificate lets {name} in any more.\n"),
            })
        }
        UsersCommand::Remove { name } => {
            let (_held, mut users) = read_held(&path)?;
            let before = users.users.len();
            users.users.retain(|user| user.who.name != *name);
            ensure!(users.users.len() < before, NO_SUCH);
            users.write(&path)?;
            Ok(format!(
                "{name} can no longer log in. Sessions of SQL clients that are open go on until `starling serve` is started again.\n"
            ))
        }
    }
}

const NO_SUCH: &str = "there is no such user; `starling users list` shows who there is";

/// Where somebody who is to be added stands already.
fn position(users: &Users, name: &str, replace: bool) -> anyhow::Result<Option<usize>> {
    let known = users.users.iter().position(|user| user.who.name == name);
    ensure!(known.is_none() || replace, "{name} is there already; --replace gives it a new password, role and team");
    Ok(known)
}

/// Keeps other commands from the users file until it is dropped. The lock is a file of its own, as the users file is another after each change; it stays.
fn hold(path: &Path) -> anyhow::Result<File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let held = options.open(&beside).and_then(|file| file.lock().map(|()| file));
    held.with_context(|| format!("users file {}: {} cannot be locked", path.display(), Path::new(&beside).display()))
}

/// The users of a file that is there, and what keeps other commands from it.
fn read_held(path: &Path) -> anyhow::Result<(File, Users)> {
    if !path.exists() {
        // It says so, and nothing is made beside it.
        Users::read(path)?;
    }
    let held = hold(path)?;
    Ok((held, Users::read(path)?))
}

impl Users {
    /// Whose token has this hash, if it has not ended: for what goes on for long and does not keep the token.
    pub(crate) fn of_token_hash(&self, hash: blake3::Hash, now_ms: i64) -> Option<Principal> {
        let user = self.users.iter().find(|user| user.token.is_some_and(|token| token.hash == hash))?;
        user.token.filter(|token| now_ms < token.ends.as_millisecond()).map(|_| user.who.clone())
    }
}

/// From a prompt that shows nothing, twice; or the first line of standard input. Never from the arguments, which everybody on the machine sees.
fn password() -> anyhow::Result<Zeroizing<String>> {
    let password = if std::io::stdin().is_terminal() {
        let first = Zeroizing::new(rpassword::prompt_password("Password: ")?);
        let second = Zeroizing::new(rpassword::prompt_password("Once more: ")?);
        ensure!(*first == *second, "the two passwords differ");
        first
    } else {
        let mut line = Zeroizing::new(String::new());
        std::io::stdin().lock().read_line(&mut line).context("no password on standard input")?;
        Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned())
    };
    if password.chars().count() < SHORTEST {
        bail!("a password has {SHORTEST} characters or more; it is read from a prompt, or from the first line of standard input");
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> Users {
        let ends = "2026-04-05T00:00:00Z".parse().expect("a moment");
        let token = Some(Token::new(&Zeroizing::new([9; 32]), ends).0);
        let who = Principal { name: "ada".to_owned(), role: Role::Product, team: "growth".to_owned() };
        Users { decoy: [3; 32], users: vec![User { who, verifier: Verifier::decoy(&[3; 32], "ada"), token, certificate: None }] }
    }

    #[test]
    fn a_users_file_is_held_by_one_at_a_time_and_its_lock_is_its_owners() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("users.toml");
        assert!(read_held(&path).is_err() && !dir.path().join("users.toml.lock").exists(), "there is nothing to hold");
        ada().write(&path).expect("writes");
        let (held, users) = read_held(&path).expect("there");
        assert_eq!(users.users.len(), 1);
        let other = File::open(dir.path().join("users.toml.lock")).expect("there");
        assert!(other.try_lock().is_err(), "it is held");
        drop(held);
        assert!(other.try_lock().is_ok());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(other.metadata().expect("there").permissions().mode() & 0o077, 0);
        }
    }

    #[test]
    fn somebody_is_there_once() {
        assert!(position(&ada(), "ada", false).is_err());
        assert_eq!(position(&ada(), "ada", true).expect("replaced"), Some(0));
        assert_eq!(position(&ada(), "bob", false).expect("new"), None);
    }

    #[test]
    fn a_tokens_hash_is_good_as_long_as_the_token() {
        let text = Token::new(&Zeroizing::new([9; 32]), jiff::Timestamp::MAX).1;
        let (hash, ends_ms) = (blake3::hash(text.as_bytes()), 1_775_347_200_000);
        for now_ms in [ends_ms - 1, ends_ms] {
            let (by_hash, by_text) = (ada().of_token_hash(hash, now_ms), ada().of_token(&text, now_ms));
            assert_eq!(by_hash.is_some(), now_ms < ends_ms);
            assert_eq!(by_hash.map(|who| who.name), by_text.map(|who| who.name));
        }
        assert!(ada().of_token_hash(blake3::hash(hash.as_bytes()), 0).is_none());
    }
}
