//! Two servers over the one house, with users and without, and tokens of everybody: for tests that only ask.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::house::{House, Served};

/// What the token file holds.
pub(crate) const SERVICE: &str = "correct-horse-battery-staple-service";

/// Tokens of all users, made once: each makes the one before it worthless.
struct Tokens {
    file: PathBuf,
    of: BTreeMap<&'static str, String>,
}

fn tokens(house: &House) -> &'static Tokens {
    static TOKENS: OnceLock<Tokens> = OnceLock::new();
    TOKENS.get_or_init(|| {
        let file = house.own_users("tokens.toml");
        let of = ["ada", "joe", "poor", "ivy", "pia", "eng", "aud", "bil", "amy", "lee", "kim"]
            .into_iter()
            .map(|name| (name, format!("Authorization: Bearer {}", house.users_in(&file, &["token", name]))))
            .collect();
        Tokens { file, of }
    })
}

/// The settings that name the users file with tokens.
pub(crate) fn with_tokens(house: &House) -> String {
    format!("users_file = {:?}", tokens(house).file.display().to_string())
}

/// The header line with a user's token.
pub(crate) fn token(house: &House, name: &str) -> String {
    tokens(house).of[name].clone()
}

/// A server with users, whose tokens are those of [`token`].
pub(crate) fn with_users(house: &House, serve: &str) -> Served {
    let text = format!("[postgres]\n{}\n[serve]\n{serve}\n", with_tokens(house));
    Served::spawn_with(Served::command_with(house, &text), false)
}

/// A server without.
pub(crate) fn without_users(house: &House, serve: &str) -> Served {
    let nowhere = house.dir.path().join("no-users.toml");
    let text = format!("[postgres]\nusers_file = {:?}\n[serve]\n{serve}\n", nowhere.display().to_string());
    Served::spawn_with(Served::command_with(house, &text), false)
}

pub(crate) struct Doors {
    house: &'static House,
    pub(crate) users: Served,
    pub(crate) local: Served,
}

impl Doors {
    pub(crate) fn open(_: &House) -> Self {
        let house = crate::house::house();
        let file = house.dir.path().join("service-token");
        std::fs::write(&file, format!("{SERVICE}\n")).expect("writes");
        let users = with_users(house, &format!("token_file = {:?}", file.display().to_string()));
        Self { house, users, local: without_users(house, "") }
    }

    pub(crate) fn token(&self, name: &str) -> String {
        token(self.house, name)
    }

    /// Where a caller of the table asks, and the header line that says who it is.
    pub(crate) fn of(&self, caller: &str) -> (String, Option<String>) {
        let name = match caller {
            "local" => return (self.local.http.clone(), None),
            "nobody" => return (self.users.http.clone(), None),
            "service" => return (self.users.http.clone(), Some(format!("Authorization: Bearer {SERVICE}"))),
            "product" => "ada",
            "privacy" => "pia",
            "integrity" => "ivy",
            "engineer" => "eng",
            "billing" => "bil",
            _ => "aud",
        };
        (self.users.http.clone(), Some(self.token(name)))
    }
}
