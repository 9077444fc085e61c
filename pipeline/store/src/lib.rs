//! # store: what is kept, what is decided, what dies
//!
//! Three places lie under all rooms, each with its own kind of durability:
//!
//! ```text
//!              rooms: ingest · aggregate · privacy · query · integrity
//!                 │                  │                       │
//!        decide   │           bytes  │                 keys  │
//!                 ▼                  ▼                       ▼
//!   metastore (SQLite)       files (object store)     keyring (folder)
//!   progress: plan → commit  segments/<day>/…         one random key per
//!   windows · ledger         people/<day>.parquet     (purpose, day, kind)
//!   releases · alerts        stats/<metric>/…
//!   audit chain              integrity/…/….sealed
//!                 │                  ▲                       │
//!                 │                  └─ table, sealed ◄──────┘  encrypts what is pseudonymous
//!                 └── retire: a key is destroyed, and its receipt stands in the audit chain
//! ```
//!
//! **Comes in:** ranges and what became of them, rows to encrypt, charges, releases, alerts, audit entries. **Goes out:** the same, durable, in an
//! order that all processes agree on; and, for a key that has been destroyed, nothing ever again.
//!
//! **How it holds together.** A file counts only when a row of the metastore names it, so files may be written early, twice, or for nothing. A
//! key is durable before anything is encrypted under it, and its tombstone is durable before its bytes go. So every crash leaves either the
//! state before or the state after, plus files that nobody names.
//!
//! **Invariants kept here.**
//! - I1 conservation: a range whose counts do not add up to its events is not committed ([`Metastore::commit`]).
//! - I2 budget: a charge is one serializable transaction; spent budget never falls and never exceeds the limit ([`Metastore::charge`]).
//! - I3 one draw: a metric's window has one release row, and [`Files::put_new`] never replaces a file.
//! - I4 no identifier: keys cannot be printed or copied; errors of the database, Parquet and the file system are reduced to their kind.
//! - I6 audit: entries are hash-chained, and the chain verifies or says where it breaks ([`Metastore::verify_audit`]).
//! - I7 expiry: a destroyed key is refused with "expired", also to a process that is making it at the same moment ([`Keyring`]).
//! - I8 fail closed: a damaged or readable-by-others key, a newer database, a window that is not closing: refused, not repaired by guessing.
//! - I9 same answer: a replayed range has the same plan; a zombie can neither plan nor commit; closing waits for plans made before it.
//!
//! **What can go wrong.**
//! - The disk fills, or the database stays locked: [`StoreError::Database`] or [`StoreError::File`]. Nothing half done counts; try again.
//! - A commit fails on its way back: it may have happened. Taking ownership again tells.
//! - Two processes own one partition: the older is [`StoreError::Fenced`] at its next plan, commit or note.
//! - A key file is lost: what it protected is lost, as if it had expired. That is meant: keys stand in no backup.
//! - Somebody edits the database by hand: [`Metastore::unbalanced`] and [`Metastore::verify_audit`] find what they can.
//!
//! One machine with local files and SQLite is built. PostgreSQL, S3 and a KMS have their places (portable SQL, [`object_store`], the three
//! operations of [`Keyring`]), but no code yet.

pub mod error;
pub mod files;
pub mod keyring;
pub mod killpoint;
pub mod metastore;
pub mod retire;
pub mod sealed;
pub mod table;
#[cfg(test)]
mod testing;

pub use error::StoreError;
pub use files::Files;
pub use keyring::{Destruction, KEY_BYTES, KeyId, KeyKind, KeyState, Keyring, KeyringError, SecretKey};
pub use metastore::{
    AlertRecord, AuditEntry, Block, BudgetRow, ChargeOutcome, Checkpoint, CountRow, Metastore, Ownership, PartitionStatus, Plan,
    QuarantineRecord, RangeOutcome, ReleaseRecord, SegmentRecord, WindowRecord, WindowState,
};
pub use retire::destroy_with_receipt;
pub use sealed::{seal, unseal};
pub use table::{TableInfo, TableWriter, decryption_properties, encrypt_batches, read_table};
