//! What clients send beside questions, answered from this list and by nothing else: settings of a session, brackets of a transaction, and the
//! few things drivers ask when they connect. None of it changes anything here, but for `statement_timeout`, which may shorten what the gate allows. What is not on the list goes to the gate, which refuses it.

/// What a statement of the list does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Small {
    /// Opens a transaction block.
    Begin,
    /// Ends one.
    Commit,
    /// Ends one, also a failed one.
    Rollback,
    /// Nothing; the tag says what it is called.
    Nothing(&'static str),
    /// Nothing beside forgetting all prepared statements.
    Forget(&'static str),
    /// Forgets one prepared statement.
    ForgetOne(String),
    /// Marks a place in a transaction block, or gives one up: nothing changes here, so there is nothing to mark.
    Savepoint(&'static str),
    /// Goes back to such a place, also in a failed block.
    RollbackTo,
    /// How long a statement of this session may take, milliseconds; `None`: as long as the gate lets it.
    Timeout(Option<u64>),
    /// Tells how long that is.
    ShowTimeout,
    /// One row of one text.
    Row(&'static str, &'static str),
}

/// Settings a client may set to what it likes: rows look the same after it.
const SETTABLE: [&str; 14] = [
    "application_name",
    "bytea_output",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "row_security",
    "search_path",
    "timezone",
    "transaction",
];

/// Settings that have one value.
const FIXED: [(&str, &str); 16] = [
    ("application_name", ""),
    ("extra_float_digits", "1"),
    ("server_version_num", "160000"),
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, MDY"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "on"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("max_identifier_length", "63"),
    ("search_path", "stats"),
    ("server_encoding", "UTF8"),
    ("server_version", super::VERSION),
    ("standard_conforming_strings", "on"),
    ("timezone", "UTC"),
    ("transaction_isolation", "read committed"),
];

/// What the statement does, if it is on the list.
pub(super) fn known(sql: &str) -> Option<Small> {
    let sql = sql.trim().trim_end_matches(';').trim_end();
    // Everything on the list is short and plain; what has a comment, a second statement or a letter beyond ASCII is for the gate.
    if sql.len() > 200 || !sql.is_ascii() || sql.contains(';') || sql.contains("--") || sql.contains("/*") {
        return None;
    }
    let lower = sql.to_ascii_lowercase();
    let spaced = lower.replace('=', " = ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    match words.as_slice() {
        ["begin" | "start", rest @ ..] if transaction(rest) => Some(Small::Begin),
        ["commit" | "end"] | ["commit" | "end", "transaction" | "work"] => Some(Small::Commit),
        ["rollback" | "abort"] | ["rollback" | "abort", "transaction" | "work"] => Some(Small::Rollback),
        ["savepoint", name] if is_plain(name) => Some(Small::Savepoint("SAVEPOINT")),
        ["release", name] | ["release", "savepoint", name] if is_plain(name) => Some(Small::Savepoint("RELEASE")),
        ["rollback", "to", name] | ["rollback", "to", "savepoint", name] if is_plain(name) => Some(Small::RollbackTo),
        ["set", "statement_timeout", "to" | "=", value]
        | ["set", "session" | "local", "statement_timeout", "to" | "=", value] => timeout(value).map(Small::Timeout),
        ["reset", "statement_timeout"] => Some(Small::Timeout(None)),
        ["show", "statement_timeout"] => Some(Small::ShowTimeout),
        ["set", "client_encoding", "to" | "=", value] => utf8(value),
        ["set", "names", value] => utf8(value),
        ["set", "standard_conforming_strings", "to" | "=", "on" | "'on'"] => Some(Small::Nothing("SET")),
        ["set", "session" | "local", name, _, _, ..] | ["set", name, _, ..] if SETTABLE.contains(name) => {
            Some(Small::Nothing("SET"))
        }
        ["set", "time", "zone", _] => Some(Small::Nothing("SET")),
        ["set", "session", "characteristics", "as", "transaction", ..] => Some(Small::Nothing("SET")),
        ["reset", "all"] => Some(Small::Nothing("RESET")),
        ["reset", name] if SETTABLE.contains(name) => Some(Small::Nothing("RESET")),
        ["show", "transaction", "isolation", "level"] => Some(Small::Row("transaction_isolation", "read committed")),
        ["show", "time", "zone"] => Some(Small::Row("TimeZone", "UTC")),
        ["show", name] => FIXED.iter().find(|(known, _)| known == name).map(|(name, value)| Small::Row(name, value)),
        ["discard", "all"] => Some(Small::Forget("DISCARD ALL")),
        ["discard", "plans" | "temp" | "temporary" | "sequences"] => Some(Small::Nothing("DISCARD")),
        ["deallocate", "all"] | ["deallocate", "prepare", "all"] => Some(Small::Forget("DEALLOCATE ALL")),
        ["deallocate", name] | ["deallocate", "prepare", name] if is_plain(name) => {
            Some(Small::ForgetOne(name.trim_matches('"').to_owned()))
        }
        ["close", "all"] => Some(Small::Nothing("CLOSE CURSOR ALL")),
        ["unlisten", "*"] => Some(Small::Nothing("UNLISTEN")),
        ["select", "version()" | "pg_catalog.version()"] => Some(Small::Row("version", super::VERSION_TEXT)),
        ["select", "current_schema()" | "current_schema" | "pg_catalog.current_schema()"] => {
            Some(Small::Row("current_schema", "stats"))
        }
        ["select", "current_database()" | "pg_catalog.current_database()"] => Some(Small::Row("current_database", "starling")),
        _ => None,
    }
}

/// A time as PostgreSQL takes it: milliseconds, or a number with its unit. 0 is no limit of one's own.
fn timeout(value: &str) -> Option<Option<u64>> {
    let value = value.trim_matches('\'').trim();
    if value == "default" {
        return Some(None);
    }
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let unit = match value[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let time = value[..digits].parse::<u64>().ok()?.checked_mul(unit)?;
    Some(Some(time).filter(|time| *time > 0))
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'"')
}

fn utf8(value: &str) -> Option<Small> {
    matches!(value.trim_matches(['\'', '"']), "utf8" | "utf-8" | "unicode").then_some(Small::Nothing("SET"))
}

/// The words that may follow BEGIN: all of them say how a transaction reads, and here nothing changes while it does.
fn transaction(words: &[&str]) -> bool {
    const MAY: [&str; 11] = [
        "transaction",
        "work",
        "isolation",
        "level",
        "read",
        "only",
        "write",
        "committed",
        "repeatable",
        "serializable",
        "deferrable",
    ];
    words.iter().all(|word| MAY.contains(&word.trim_end_matches(',')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drivers_send_at_the_start_is_on_the_list() {
        for sql in [
            "BEGIN",
            "begin;",
            "START TRANSACTION READ ONLY",
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            "COMMIT",
            "ROLLBACK",
            "SET extra_float_digits = 3",
            "SET application_name = 'PostgreSQL JDBC Driver'",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET statement_timeout=0",
            "SET client_encoding TO 'UTF8'",
            "SET TIME ZONE 'UTC'",
            "SET search_path TO stats, meta",
            "show standard_conforming_strings",
            "SHOW TRANSACTION ISOLATION LEVEL",
            "SHOW transaction_isolation",
            "select pg_catalog.version()",
            "SELECT current_schema()",
            "DISCARD ALL",
            "DEALLOCATE ALL",
            "UNLISTEN *",
            "RESET ALL",
            "SAVEPOINT \"_pg3_1\"",
            "RELEASE SAVEPOINT sp1",
            "ROLLBACK TO \"_pg3_1\"",
            "SHOW statement_timeout",
        ] {
            assert!(known(sql).is_some(), "{sql}");
        }
        for (value, time) in [
            ("0", None),
            ("5000", Some(5_000)),
            ("'5s'", Some(5_000)),
            ("'2 min'", None),
            ("'2min'", Some(120_000)),
            ("DEFAULT", None),
        ] {
            let sql = format!("SET statement_timeout TO {value}");
            assert!(known(&sql) == Some(Small::Timeout(time)) || (value.contains(' ') && known(&sql).is_none()), "{sql}");
        }
    }

    #[test]
    fn everything_else_is_for_the_gate() {
        for sql in [
            "SELECT 1",
            "SHOW TABLES",
            "SHOW hba_file",
            "SHOW ALL",
            "SET client_encoding TO 'LATIN1'",
            "SET standard_conforming_strings = off",
            "SET role = 'postgres'",
            "SET datafusion.execution.batch_size = 1",
            "SET SESSION AUTHORIZATION postgres",
            "BEGIN; DROP TABLE x",
            "BEGIN -- DROP TABLE x",
            "SELECT version(), 1",
            "PREPARE TRANSACTION 'x'",
            "COMMIT PREPARED 'x'",
            "DEALLOCATE a.b",
            "BEGIN RESTRICTED",
            "ROLLBACK TO SAVEPOINT a.b",
            "SET statement_timeout = 'soon'",
            "SET statement_timeout = -1",
            "",
        ] {
            assert_eq!(known(sql), None, "{sql}");
        }
    }
}
