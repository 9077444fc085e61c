//! One statement for both databases.
//!
//! The rooms of the metastore write each statement once, in portable SQL with `$1` placeholders, and hand it to a [`Tx`], which runs it on
//! whichever database is open. sqlx has a driver of its own for that, `Any`; it is not used because its `QueryBuilder` writes `?` for
//! PostgreSQL too, because its connections can be described by a URL only (no owner-only file, no reader that cannot write), and because
//! it copies each row into values. What is needed here is three kinds of value and a choice between two rows.
//!
//! What makes one SQL do for two databases: `COLLATE "C"` orders text by its bytes in both (SQLite is taught the name when a connection
//! opens); sums are cast (PostgreSQL's `SUM(BIGINT)` is a NUMERIC); an upsert meets each row once; text holds no NUL (PostgreSQL keeps none),
//! U+FFFD stands in for it in both.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::query::Query;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, ColumnIndex, Decode, Postgres, Row as _, SqlSafeStr as _, Sqlite, Transaction, Type};
use tokio::sync::Mutex;

use super::database::Server;
use crate::error::StoreError;

/// Up to so many rows an insert of many is kept prepared. Connections keep a hundred statements.
const KEPT_ROWS: usize = 8;
/// How long an undoing may take. The server undoes it in any case when the connection ends.
const ROLLBACK_PATIENCE: Duration = Duration::from_secs(1);

/// A value handed to a statement.
#[derive(Clone)]
pub(super) enum Value {
    Integer(Option<i64>),
    Real(f64),
    Text(Option<String>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Integer(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.replace('\0', "\u{fffd}")))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        text.map_or(Self::Text(None), Self::from)
    }
}

/// A statement with its values.
#[derive(Clone)]
pub(super) struct Statement {
    text: Cow<'static, str>,
    values: Vec<Value>,
    keep: bool,
}

/// A statement without values yet.
pub(super) fn sql(text: &'static str) -> Statement {
    Statement { text: Cow::Borrowed(text), values: Vec::new(), keep: true }
}

impl Statement {
    /// `head` with one `(…)` a row, then `tail`: an insert of many rows. Its text depends on their number, so it is kept prepared for few only.
    pub(super) fn rows<const N: usize>(
        head: &'static str,
        rows: impl IntoIterator<Item = [Value; N]>,
        tail: &'static str,
    ) -> Self {
        let (mut text, mut values) = (head.to_owned(), Vec::new());
        for row in rows {
            text.push_str(if values.is_empty() { "VALUES (" } else { ", (" });
            for (i, value) in row.into_iter().enumerate() {
                values.push(value);
                text.push_str(&format!("{}${}", if i == 0 { "" } else { ", " }, values.len()));
            }
            text.push(')');
        }
        text.push_str(tail);
        let keep = values.len() <= KEPT_ROWS * N;
        Self { text: Cow::Owned(text), values, keep }
    }

    /// Hands over the next value.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }
}

/// The same few lines for each driver, whose traits cannot be named for both at once.
macro_rules! runnable {
    ($name:ident, $database:ty) => {
        pub(super) fn $name(statement: Statement) -> Query<'static, $database, <$database as sqlx::Database>::Arguments> {
            let text = match statement.text {
                Cow::Borrowed(text) => text.into_sql_str(),
                Cow::Owned(text) => AssertSqlSafe(text).into_sql_str(),
            };
            let query = sqlx::query::<$database>(text).persistent(statement.keep);
            statement.values.into_iter().fold(query, |query, value| match value {
                Value::Integer(number) => query.bind(number),
                Value::Real(number) => query.bind(number),
                Value::Text(text) => query.bind(text),
            })
        }
    };
}
runnable!(for_sqlite, Sqlite);
runnable!(for_postgres, Postgres);

/// A row of either database.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// Reads a column, or says which table holds what cannot be read.
pub(super) fn column<'r, T, I>(row: &'r Row, index: I, table: &'static str) -> Result<T, StoreError>
where
    T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    I: ColumnIndex<SqliteRow> + ColumnIndex<PgRow>,
{
    match row {
        Row::Sqlite(row) => row.try_get(index),
        Row::Postgres(row) => row.try_get(index),
    }
    .map_err(|_| StoreError::UnreadableRow { table })
}

/// Reads a column that holds a count.
pub(super) fn count_column(row: &Row, name: &'static str, table: &'static str) -> Result<u64, StoreError> {
    u64::try_from(column::<i64, _>(row, name, table)?).map_err(|_| StoreError::UnreadableRow { table })
}

/// Reads a column that holds a 32-bit number, such as an epoch.
pub(super) fn small_column<T: TryFrom<i64>>(row: &Row, name: &'static str, table: &'static str) -> Result<T, StoreError> {
    T::try_from(column::<i64, _>(row, name, table)?).map_err(|_| StoreError::UnreadableRow { table })
}

/// A size as the database keeps it. Sizes above 2⁶³ do not occur.
pub(super) fn stored(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// A transaction of either driver.
pub(super) enum Open {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>, Arc<Server>),
}

/// An open transaction, as those who act in it hold it. Only who began it can end it.
#[derive(Clone)]
pub(super) struct Tx {
    during: &'static str,
    // Shared, so that it can be handed to a closure by value: a closure that borrows it gives a future that is not `Send` for every
    // lifetime, and the compiler asks for that. Never contended.
    open: Arc<Mutex<Option<Open>>>,
}

impl Tx {
    pub(super) fn new(during: &'static str, open: Open) -> Self {
        Self { during, open: Arc::new(Mutex::new(Some(open))) }
    }

    /// What the transaction is for.
    pub(super) const fn during(&self) -> &'static str {
        self.during
    }

    /// Runs a statement and returns how many rows it changed.
    pub(super) async fn execute(&self, statement: Statement) -> Result<u64, StoreError> {
        match self.open.lock().await.as_mut().ok_or(StoreError::Cancelled)? {
            Open::Sqlite(tx) => {
                let done = for_sqlite(statement).execute(&mut **tx).await.map_err(|e| self.failed(&e))?;
                Ok(done.rows_affected())
            }
            Open::Postgres(tx, server) => {
                let done = server.answer(self.during, for_postgres(statement).execute(&mut **tx)).await?;
                Ok(done.rows_affected())
            }
        }
    }

    /// The rows of a statement.
    pub(super) async fn fetch_all(&self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        match self.open.lock().await.as_mut().ok_or(StoreError::Cancelled)? {
            Open::Sqlite(tx) => {
                let rows = for_sqlite(statement).fetch_all(&mut **tx).await.map_err(|e| self.failed(&e))?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Open::Postgres(tx, server) => {
                let rows = server.answer(self.during, for_postgres(statement).fetch_all(&mut **tx)).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The only row of a statement, if there is one.
    pub(super) async fn fetch_optional(&self, statement: Statement) -> Result<Option<Row>, StoreError> {
        Ok(self.fetch_all(statement).await?.into_iter().next())
    }

    /// The only row of a statement that always has one.
    pub(super) async fn fetch_one(&self, statement: Statement) -> Result<Row, StoreError> {
        self.fetch_optional(statement).await?.ok_or_else(|| self.failed(&sqlx::Error::RowNotFound))
    }

    /// Makes it count.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self.open.lock().await.take().ok_or(StoreError::Cancelled)? {
            Open::Sqlite(tx) => tx.commit().await.map_err(|e| self.failed(&e)),
            Open::Postgres(tx, server) => server.answer(self.during, tx.commit()).await,
        }
    }

    /// Undoes it, before anything else is tried. Dropping does that too, some time later.
    pub(super) async fn rollback(self) {
        let open = self.open.lock().await.take();
        // An error here means that the connection is gone, and the transaction with it.
        match open {
            Some(Open::Sqlite(tx)) => drop(tx.rollback().await),
            Some(Open::Postgres(tx, _)) => drop(tokio::time::timeout(ROLLBACK_PATIENCE, tx.rollback()).await),
            None => {}
        }
    }

    fn failed(&self, error: &sqlx::Error) -> StoreError {
        StoreError::database(self.during, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insert_of_many_rows_numbers_its_values() {
        let statement =
            Statement::rows("INSERT INTO t (a, b) ", [[1.into(), "x".into()], [2.into(), "y".into()]], " ON CONFLICT DO NOTHING");
        assert_eq!(statement.text, "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4) ON CONFLICT DO NOTHING");
        assert_eq!(statement.values.len(), 4);
    }

    #[test]
    fn text_holds_no_nul() {
        assert!(matches!(Value::from("a\0b"), Value::Text(Some(text)) if text == "a\u{fffd}b"));
    }
}
