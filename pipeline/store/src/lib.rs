//! # store: what is kept, what is decided, what dies
//!
//! Three places lie under all rooms, each with its own kind of durability:
//!
//! ```text
//!              rooms: ingest · aggregate · privacy · query · integrity
//!                 │                  │                       │
//!        decide   │           bytes  │                 keys  │
//!                 ▼                  ▼                       ▼
//!   metastore (SQLite, Pg)   files (object store)     keyring (folder)
//!   progress: plan → commit  segments/<day>/…         one random key per
//!   windows · ledger         people/<day>.parquet     (purpose, day, kind)
//!   releases · answers       stats/<metric>/…
//!   alerts · businesses      answers/…
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
//! - I2 budget: a charge is one serializable transaction; over one block or several; spent budget never falls and never
//!   exceeds a limit: a block's, the teams' share of it, a team's allotment ([`Metastore::charge`]).
//! - I3 one draw: a metric's window has one release row, a question one answer row and only after it was charged, and [`Files::put_new`] never replaces a file.
//! - I4 no identifier: keys cannot be printed or copied; errors of the database, Parquet and the file system are reduced to their kind.
//! - I6 audit: entries are hash-chained, and the chain verifies or says where it breaks ([`Metastore::verify_audit`]).
//! - I7 expiry: a destroyed key is refused with "expired", also to a process that is making it at the same moment ([`Keyring`]).
//! - I8 fail closed: a damaged or readable-by-others key, a newer database, a window that is not closing: refused, not repaired by guessing.
//! - I9 same answer: a replayed range has the same plan; a zombie can neither plan nor commit; closing waits for plans made before it.
//!
//! **What can go wrong.**
//! - The object store is out of reach: [`StoreError::Object`] within a minute; [`StoreError::is_outage`] says whether waiting may help.
//! - The disk fills or fails, or the database stays locked: [`StoreError::Database`] or [`StoreError::File`], with what to do. Nothing half
//!   done counts; try again. Tests let each operation fail: [`faultpoint`].
//! - A commit fails on its way back: it may have happened. Taking ownership again tells.
//! - The log below the offsets is another one, or lost something: ingest stops, and only an operator's word goes past it, recorded in the audit
//!   log ([`Metastore::accept_loss`]).
//! - Two processes own one partition: the older is [`StoreError::Fenced`] at its next plan, commit or note.
//! - A key file is lost: what it protected is lost, as if it had expired. That is meant: keys stand in no backup.
//! - Somebody edits the database by hand: [`Metastore::unbalanced`] and [`Metastore::verify_audit`] find what they can.
//! - The database server restarts, fails over or is cut off: what was in work fails with [`StoreError::Database`], and the next call finds a
//!   new connection. Transactions that collide are repeated, a bounded number of times.
//!
//! **Where the files are.** In a local folder, or on S3 (a bucket's folder, on AWS or on any server that honours `If-None-Match`); rooms see
//! [`Files`] and do not ask. What is particular to either stands in [`files`] and [`s3`]. Both give the same three promises: a file is there
//! whole or not at all; it survives a power failure when the call has returned; [`Files::put_new`] has one winner. Locally that takes syncs
//! of the file, of its folder and of every folder's name up to the root, which a test checks by watching the system calls; on S3 it is the
//! server's word, of which the third is tried out before it is relied on. Keys, spilled runs and the local signal log stay on the machine in any
//! case.
//!
//! A store that cannot be reached is never mistaken for a file that is gone: [`StoreError::Object`] names the fault, [`StoreError::FileMissing`]
//! and `None` are said only when the server itself said "no such object". Reading a table takes one request for its footer, which brings small
//! ones whole, and one for each row group.
//!
//! **SQLite or PostgreSQL.** One machine needs nothing but SQLite. Several machines share a PostgreSQL (`postgres://…`); what each method promises
//! is the same, and the tests run on both (`tests/metastore`). Beyond this machine the address must say how the connection is encrypted,
//! because the driver would otherwise fall back to plain text in silence (`metastore/address.rs`); a password is shown nowhere. The server must
//! flush its log (`fsync`), fail over without losing what it confirmed, and not be shared with another installation of Starling: a
//! database, or a schema named by `options[search_path]`, belongs to one.
//!
//! A KMS has its place (the three operations of [`Keyring`]), but no code yet.

pub mod error;
pub mod faultpoint;
pub mod files;
pub mod keyring;
pub mod killpoint;
pub mod metastore;
pub mod retire;
pub mod s3;
pub mod sealed;
pub mod table;
#[cfg(test)]
mod testing;

pub use error::StoreError;
pub use files::Files;
pub use keyring::{Destruction, KEY_BYTES, KeyId, KeyKind, KeyState, Keyring, KeyringError, SecretKey};
pub use metastore::protocol;
pub use metastore::{
    AcceptedLoss, AlertRecord, AnswerRecord, AuditEntry, AuditPage, BEHIND, Block, BlockCharge, BudgetRow, ChargeOutcome,
    ChargeRecord, ChargeRequest, Checkpoint, CountRow, Delivery, DeliveryEnd, DeliveryRecord, DemotionRecord, DoorHour, Finding,
    Hours, JudgedRecord, KEPT_FOR_ALLOWANCE, KEPT_FOR_DEMOTION, KeptCount, KeptRecord, Metastore, NewestRelease, Ownership,
    PartitionHour, PartitionStatus, Plan, Probe, QuarantineEntry, QuarantineFilter, QuarantineRecord, RangeOutcome, Reason,
    ReceiverRecord, Refusal, ReleaseRecord, Restarted, SavedState, SegmentRecord, SenderRecord, SilenceRecord, Spender,
    StepRecord, Telling, WindowRecord, WindowState, WorkRecord,
};
pub use retire::destroy_with_receipt;
pub use s3::{ObjectFault, S3Address, S3Credentials, S3Settings};
pub use sealed::{seal, unseal};
pub use table::{TableInfo, TableWriter, decryption_properties, encrypt_batches, read_table};
