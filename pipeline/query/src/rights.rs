//! Which role may enter which room: one small table, default deny.
//!
//! It stands in this crate because the gate evaluates it, so that every door gives the same answer; a door only says who asks. A policy language
//! would be larger than what it says. What is not in [`TABLE`] is denied, whatever a later version adds to the catalogue. Rooms are the
//! schemas of SQL, and what a door shows beside SQL: so there is one place where it is decided who sees what.
//!
//! | | `stats`, `meta` | `private` | alerts, `integrity` | `billing` | `business` | audit log | budget | health, metrics, promises |
//! |---|---|---|---|---|---|---|---|---|
//! | product | yes (P32) | yes, with noise; its team pays | no | no | yes (P34) | no | its team's | yes |
//! | privacy | yes (P32) | no | no | no | no | yes | all | yes |
//! | integrity | yes (P32) | no | yes (P33) | no | yes (P34) | no | no | yes |
//! | engineer | yes (P32) | no | no | no | no | no | all | yes |
//! | auditor | yes (P32) | no | no | no | no | yes | all | yes |
//! | billing | yes (P32) | no | no | yes (P35) | yes (P34) | no | no | yes |
//! | local | yes | no: a question is somebody's | yes | yes | yes | yes | all | yes |
//!
//! What blocks have left is everybody's: `meta.budget`, `meta.charges` and `meta.allotments` tell whoever may ask SQL what each team was charged, without
//! what it asked. The room of budgets is the report over them.
//!
//! Business information may be seen by the whole company (P34), as billing may (P35). A post sees what its work asks for all the same (P40): who
//! asks how features are used, who works on an alert that names a business, and who bills it. Keeping the system running, watching over budgets and
//! checking what the others did asks for no business's name.
//!
//! *Local* is whoever knocks from this machine at a door that has no users: nobody can be made it in a users file.
//!
//! The table is asked twice about a schema: by the gate for each name in the text, which refuses with a hint, and by the catalogue, in which a schema that
//! may not be read does not exist.

use crate::alerts::INTEGRITY;
use crate::bills::BILLING;
use crate::businesses::BUSINESS;
use crate::catalogue::{META, STATS};
use crate::error::{NOT_PERMITTED, QueryError};
use crate::private::table::PRIVATE;

/// What somebody is here for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Asks how features are used.
    Product,
    /// Watches over budgets and promises.
    Privacy,
    /// Works on alerts.
    Integrity,
    /// Keeps it running.
    Engineer,
    /// Checks what the others did.
    Auditor,
    /// Writes businesses' bills.
    Billing,
    /// Nobody in particular, on this machine, at a door without users.
    Local,
}

/// What may be entered or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Room {
    /// Released statistics, `stats.*`.
    Stats,
    /// Definitions, budgets and releases as tables, `meta.*`.
    Meta,
    /// Questions with noise, `private.*`.
    Private,
    /// Alerts and the work on them, `integrity.*`.
    Alerts,
    /// What businesses are billed for, `billing.*`.
    Billing,
    /// What businesses say of themselves, `business.*`.
    Business,
    /// The hash-chained log.
    Audit,
    /// What one's own team and scheduled releases spent.
    Budget,
    /// What every team spent.
    AllBudgets,
    /// Partitions, windows, keys, deliveries.
    Health,
    /// What is released, and what it costs.
    Metrics,
    /// What was promised, and who read what.
    Promises,
}

/// Role and room, where a role may enter one.
const TABLE: [(Role, Room); 56] = [
    (Role::Product, Room::Stats),
    (Role::Product, Room::Meta),
    (Role::Product, Room::Private),
    (Role::Product, Room::Business),
    (Role::Product, Room::Budget),
    (Role::Product, Room::Health),
    (Role::Product, Room::Metrics),
    (Role::Product, Room::Promises),
    (Role::Privacy, Room::Stats),
    (Role::Privacy, Room::Meta),
    (Role::Privacy, Room::Audit),
    (Role::Privacy, Room::Budget),
    (Role::Privacy, Room::AllBudgets),
    (Role::Privacy, Room::Health),
    (Role::Privacy, Room::Metrics),
    (Role::Privacy, Room::Promises),
    (Role::Integrity, Room::Stats),
    (Role::Integrity, Room::Meta),
    (Role::Integrity, Room::Alerts),
    (Role::Integrity, Room::Business),
    (Role::Integrity, Room::Health),
    (Role::Integrity, Room::Metrics),
    (Role::Integrity, Room::Promises),
    (Role::Engineer, Room::Stats),
    (Role::Engineer, Room::Meta),
    (Role::Engineer, Room::Budget),
    (Role::Engineer, Room::AllBudgets),
    (Role::Engineer, Room::Health),
    (Role::Engineer, Room::Metrics),
    (Role::Engineer, Room::Promises),
    (Role::Auditor, Room::Stats),
    (Role::Auditor, Room::Meta),
    (Role::Auditor, Room::Audit),
    (Role::Auditor, Room::Budget),
    (Role::Auditor, Room::AllBudgets),
    (Role::Auditor, Room::Health),
    (Role::Auditor, Room::Metrics),
    (Role::Auditor, Room::Promises),
    (Role::Billing, Room::Stats),
    (Role::Billing, Room::Meta),
    (Role::Billing, Room::Billing),
    (Role::Billing, Room::Business),
    (Role::Billing, Room::Health),
    (Role::Billing, Room::Metrics),
    (Role::Billing, Room::Promises),
    (Role::Local, Room::Stats),
    (Role::Local, Room::Meta),
    (Role::Local, Room::Alerts),
    (Role::Local, Room::Billing),
    (Role::Local, Room::Business),
    (Role::Local, Room::Audit),
    (Role::Local, Room::Budget),
    (Role::Local, Room::AllBudgets),
    (Role::Local, Room::Health),
    (Role::Local, Room::Metrics),
    (Role::Local, Room::Promises),
];

impl Role {
    /// All roles that somebody can have.
    pub const ALL: [Self; 6] = [Self::Product, Self::Privacy, Self::Integrity, Self::Engineer, Self::Auditor, Self::Billing];

    /// Its name in settings and in the audit log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Product => "product",
            Self::Privacy => "privacy",
            Self::Integrity => "integrity",
            Self::Engineer => "engineer",
            Self::Auditor => "auditor",
            Self::Billing => "billing",
            Self::Local => "local",
        }
    }

    /// The role of this name, of those that somebody can have.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether it may enter.
    #[must_use]
    pub fn may(self, room: Room) -> bool {
        TABLE.contains(&(self, room))
    }

    /// Refuses a room that may not be entered.
    ///
    /// # Errors
    /// [`NOT_PERMITTED`], with what it may enter and who else may enter this.
    pub fn check(self, room: Room) -> Result<(), QueryError> {
        if self.may(room) {
            return Ok(());
        }
        let who: Vec<&str> = Self::ALL.into_iter().filter(|role| role.may(room)).map(Self::name).collect();
        let who = format!("{} is for role {}", room.name(), who.join(", "));
        let reason = format!("role {} may not read {}", self.name(), room.name());
        Err(match (self, room.is_schema()) {
            (Self::Local, _) => {
                let hint = format!(
                    "{who}: `starling users add NAME --role {} --team TEAM` makes one, who logs in",
                    Self::one_who_may(room)
                );
                QueryError::new(NOT_PERMITTED, reason, hint)
            }
            (_, true) => {
                let may: Vec<&str> = Room::SCHEMAS.into_iter().filter(|room| self.may(*room)).map(Room::name).collect();
                QueryError::new(NOT_PERMITTED, reason, format!("it reads {}; {who}", may.join(", ")))
            }
            (_, false) => QueryError::new(NOT_PERMITTED, reason, who),
        })
    }

    fn one_who_may(room: Room) -> &'static str {
        Self::ALL.into_iter().find(|role| role.may(room)).map_or("ROLE", Self::name)
    }
}

impl Room {
    /// All rooms.
    pub const ALL: [Self; 12] = [
        Self::Stats,
        Self::Meta,
        Self::Private,
        Self::Alerts,
        Self::Billing,
        Self::Business,
        Self::Audit,
        Self::Budget,
        Self::AllBudgets,
        Self::Health,
        Self::Metrics,
        Self::Promises,
    ];
    /// Those that SQL has as schemas.
    pub const SCHEMAS: [Self; 6] = [Self::Stats, Self::Meta, Self::Private, Self::Alerts, Self::Billing, Self::Business];

    /// Its name in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stats => "stats.*",
            Self::Meta => "meta.*",
            Self::Private => "private.*",
            Self::Alerts => "alerts (integrity.*)",
            Self::Billing => "billing.*",
            Self::Business => "business.*",
            Self::Audit => "the audit log",
            Self::Budget => "the budget",
            Self::AllBudgets => "other teams' budgets",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Promises => "promises",
        }
    }

    /// The schema's name, if it is one.
    #[must_use]
    pub const fn schema(self) -> Option<&'static str> {
        match self {
            Self::Stats => Some(STATS),
            Self::Meta => Some(META),
            Self::Private => Some(PRIVATE),
            Self::Alerts => Some(INTEGRITY),
            Self::Billing => Some(BILLING),
            Self::Business => Some(BUSINESS),
            _ => None,
        }
    }

    const fn is_schema(self) -> bool {
        self.schema().is_some()
    }

    fn of_schema(schema: &str) -> Option<Self> {
        Self::SCHEMAS.into_iter().find(|room| room.schema() == Some(schema))
    }
}

/// Who asks: as whom a door has recognised whoever is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Name, as it goes into the audit log.
    pub name: String,
    /// What it is here for.
    pub role: Role,
    /// The team whose allotment pays for its questions over protected tables.
    pub team: String,
}

/// What one statement may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// All there is: whoever runs the engine on their own machine.
    All,
    /// What the table says of a role.
    Of(Role),
}

impl Rights {
    /// Whether it may read tables of this schema.
    pub(crate) fn allow(self, schema: &str) -> bool {
        match self {
            Self::All => true,
            Self::Of(role) => Room::of_schema(schema).is_some_and(|room| role.may(room)),
        }
    }

    /// Refuses a schema that is there and may not be read; whether the table is there is not told.
    ///
    /// # Errors
    /// [`NOT_PERMITTED`].
    pub(crate) fn check(self, schema: &str) -> Result<(), QueryError> {
        match (self, Room::of_schema(schema)) {
            (Self::Of(role), Some(room)) => role.check(room),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same table, written down a second time: a row for each role, a sign for each of [`Room::ALL`].
    const EXPECTED: [(&str, &str); 7] = [
        // Stats, Meta, Private; Alerts, Billing, Business, Audit; Budget, AllBudgets; Health, Metrics, Promises
        ("product", "yyy nnyn yn yyy"),
        ("privacy", "yyn nnny yy yyy"),
        ("integrity", "yyn ynyn nn yyy"),
        ("engineer", "yyn nnnn yy yyy"),
        ("auditor", "yyn nnny yy yyy"),
        ("billing", "yyn nyyn nn yyy"),
        ("local", "yyn yyyy yy yyy"),
    ];

    #[test]
    fn p32_p33_p34_p35_every_cell_of_the_table_is_as_it_was_decided_and_the_rest_is_denied() {
        let roles: Vec<Role> = Role::ALL.into_iter().chain([Role::Local]).collect();
        assert_eq!(EXPECTED.map(|(name, _)| name).to_vec(), roles.iter().map(|role| role.name()).collect::<Vec<_>>());
        for (role, (name, cells)) in roles.into_iter().zip(EXPECTED) {
            let cells: Vec<bool> = cells.chars().filter(|sign| *sign != ' ').map(|sign| sign == 'y').collect();
            assert_eq!(cells.len(), Room::ALL.len());
            for (room, cell) in Room::ALL.into_iter().zip(cells) {
                assert_eq!(role.may(room), cell, "{name} and {}", room.name());
                assert_eq!(role.check(room).is_ok(), cell, "{name} and {}", room.name());
                if let Some(schema) = room.schema() {
                    let rights = Rights::Of(role);
                    assert_eq!((rights.allow(schema), rights.check(schema).is_ok()), (cell, cell), "{name} and {schema}");
                }
            }
            for schema in ["businesses", "information_schema", "alerts", "audit", ""] {
                assert!(!Rights::Of(role).allow(schema), "{name} and {schema}");
            }
        }
    }

    #[test]
    fn nobody_is_made_local_by_name() {
        assert_eq!(Role::named("local"), None);
        assert_eq!(Role::named("privacy"), Some(Role::Privacy));
    }

    #[test]
    fn a_refusal_names_the_role_and_who_to_ask() {
        let told = |role: Role, room| role.check(room).expect_err("denied").to_string();
        assert_eq!(
            told(Role::Auditor, Room::Private),
            "[42501] role auditor may not read private.*. Hint: it reads stats.*, meta.*; private.* is for role product"
        );
        assert_eq!(
            told(Role::Product, Room::Audit),
            "[42501] role product may not read the audit log. Hint: the audit log is for role privacy, auditor"
        );
        let local = told(Role::Local, Room::Private);
        assert!(local.contains("`starling users add NAME --role product --team TEAM`"), "{local}");
    }
}
