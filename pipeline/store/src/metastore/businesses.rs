//! What businesses say of themselves (P34): one row a business, what it said last.
//!
//! **Why a table here and not files.** What is billed lies in files, because each range adds to it and a reader wants all of a day. Here each range
//! replaces a few rows of very many, and a reader wants one of them: files by range would have to be merged over for each question, and a merged
//! file be written anew for every business that changes its name. A row is some 200 bytes with its index entries, so 200 million businesses are 40
//! GB of PostgreSQL, and if each of them speaks once a month that is 80 rows a second. They are looked up by the key that they are stored under;
//! whoever reads all of them reads page by page.
//!
//! **Exactly once.** The rows of a range are written in the transaction that commits it, so a range that is replayed, by whomever, has them once,
//! and one that is given up has left nothing. Partitions run apart, so what was said earlier may come later: a row is replaced only by what
//! supersedes it ([`BusinessAccount::supersedes`], which the statement says again in SQL), and any order of ranges leaves the same rows (I9).
//!
//! **How long.** "While the business has an account" (P34). Whether it still has one nobody may have thought of telling, so an account is believed
//! in for as long as it speaks: a row goes when nothing newer has been committed for some time, which the caller names, and the log is told how
//! many went. That time is counted from the commit and not from the event, as a backlog that is read late is news all the same. What was said
//! earlier than what is known renews nothing.
//!
//! A business that says nothing but its identifier has no account any more, as `event.proto` has it: its row is shown to nobody, and stays for the
//! same time, so that nothing said earlier brings the account back.
//!
//! **In clear.** Like business names in alerts the rows are no person's data and not encrypted by us; nobody but the owner can read the file, and a
//! database server has disks of its own to encrypt.

use std::collections::BTreeMap;

use serde_json::json;
use starling_schemas::business::BusinessAccount;
use starling_schemas::codes::{Category, Tier};

use super::database::Turn;
use super::sql::{Row, Statement, Tx, column, small_column, sql};
use super::{Metastore, ROWS_PER_INSERT};
use crate::error::StoreError;

const TABLE: &str = "businesses";

/// Which rows say something: an empty text, and the code of what is not known, are nothing.
macro_rules! says_something {
    () => {
        " AND (portfolio <> '' OR name <> '' OR category <> 0 OR tier <> 0)"
    };
}

/// Rows that go in one transaction when their time has run out.
const GOING: i64 = 10_000;

macro_rules! select_businesses {
    ($rest:literal) => {
        concat!("SELECT business, portfolio, name, category, tier, told_ms FROM businesses ", $rest)
    };
}

impl Metastore {
    /// What is known of these businesses, in no order; of a business that is not known, or has no account any more, there is nothing. All of it is
    /// of one moment.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn businesses(&self, of: &[String]) -> Result<Vec<BusinessAccount>, StoreError> {
        let tx = self.database.snapshot("reading businesses").await?;
        let mut found = Vec::new();
        for business in of {
            let row = tx
                .fetch_optional(sql(concat!(select_businesses!("WHERE business = $1"), says_something!())).bind(business))
                .await?;
            found.extend(row.as_ref().map(account).transpose()?);
        }
        tx.rollback().await;
        Ok(found)
    }

    /// The next businesses that have an account, at most `limit`, in an order of the database's own: those behind `after`, or the first ones.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn businesses_after(&self, after: Option<&str>, limit: u32) -> Result<Vec<BusinessAccount>, StoreError> {
        let statement = sql(concat!(select_businesses!("WHERE business > $1"), says_something!(), " ORDER BY business LIMIT $2"));
        // No business has an empty identifier.
        let statement = statement.bind(after.unwrap_or_default()).bind(i64::from(limit));
        self.database.fetch_all("reading businesses", statement).await?.iter().map(account).collect()
    }

    /// Erases what was committed before `before_ms` and not renewed since, with an entry in the hash-chained log for each 10,000 of them. Gives how
    /// many.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn erase_businesses(&self, before_ms: i64, now_ms: i64) -> Result<u64, StoreError> {
        const DURING: &str = "erasing businesses that are silent";
        let mut erased = 0;
        loop {
            // Who finds nothing due waits for nobody's turn: this is asked at every look.
            let due = sql("SELECT 1 FROM businesses WHERE kept_ms < $1 LIMIT 1").bind(before_ms);
            if self.database.fetch_all("looking for businesses that are silent", due).await?.is_empty() {
                return Ok(erased);
            }
            erased += self
                .database
                .change(DURING, Turn::Audit, |tx| async move {
                    let these = "DELETE FROM businesses WHERE business IN (SELECT business FROM businesses WHERE kept_ms < $1 \
             ORDER BY kept_ms LIMIT $2)";
                    let gone = tx.execute(sql(these).bind(before_ms).bind(GOING)).await?;
                    if gone > 0 {
                        let detail = json!({ "count": gone, "kept_before_ms": before_ms, "reason": "they have not told of themselves since" });
                        super::audit::append(&tx, None, "businesses_erased", &detail, now_ms).await?;
                    }
                    Ok(gone)
                })
                .await?;
        }
    }
}

/// Takes what a range's businesses said, where it supersedes what is known.
pub(super) async fn add(tx: &Tx, told: &[BusinessAccount], now_ms: i64) -> Result<(), StoreError> {
    // One row a business: PostgreSQL refuses an upsert that meets the same row twice. In their order, so that partitions do not wait for each other
    // in a ring.
    let mut last = BTreeMap::<&str, &BusinessAccount>::new();
    for account in told {
        let known = last.entry(&account.business).or_insert(account);
        if account.supersedes(known) {
            *known = account;
        }
    }
    let last: Vec<_> = last.into_values().collect();
    for chunk in last.chunks(ROWS_PER_INSERT) {
        let rows = chunk.iter().map(|account| {
            [
                (&account.business).into(),
                (&account.portfolio).into(),
                (&account.name).into(),
                i64::from(account.category.code()).into(),
                i64::from(account.tier.code()).into(),
                account.told_ms.into(),
                now_ms.into(),
            ]
        });
        // As `BusinessAccount::supersedes` has it: by bytes, whatever the database's own order is.
        let tail = " ON CONFLICT (business) DO UPDATE SET portfolio = excluded.portfolio, name = excluded.name, category = excluded.category, \
             tier = excluded.tier, told_ms = excluded.told_ms, kept_ms = excluded.kept_ms WHERE (excluded.told_ms, \
             excluded.portfolio COLLATE \"C\", excluded.name COLLATE \"C\", excluded.category, excluded.tier) > (businesses.told_ms, \
             businesses.portfolio COLLATE \"C\", businesses.name COLLATE \"C\", businesses.category, businesses.tier)";
        let head = "INSERT INTO businesses (business, portfolio, name, category, tier, told_ms, kept_ms) ";
        tx.execute(Statement::rows(head, rows, tail)).await?;
    }
    Ok(())
}

fn account(row: &Row) -> Result<BusinessAccount, StoreError> {
    let unreadable = || StoreError::UnreadableRow { table: TABLE };
    Ok(BusinessAccount {
        business: column(row, "business", TABLE)?,
        portfolio: column(row, "portfolio", TABLE)?,
        name: column(row, "name", TABLE)?,
        category: Category::from_code(small_column(row, "category", TABLE)?).ok_or_else(unreadable)?,
        tier: Tier::from_code(small_column(row, "tier", TABLE)?).ok_or_else(unreadable)?,
        told_ms: column(row, "told_ms", TABLE)?,
    })
}
