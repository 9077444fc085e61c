//! Tokens of pairs are covered from the sink to the detectors: in the topic, in the local log, wherever signals are written down.
//!
//! ```text
//!  minimize ─► bare rows ─► cover ─► topic | sealed file ─► uncover ─► detectors, in memory
//!                             └── data key of (pair, the day of the plan) ──┘     dies 72 hours after that day began
//! ```
//!
//! **Why.** b's message to a is a row with b in it and, beside it, an answer with the token of a's contact. Bare, the two rows and a's contact would join
//! a and b for whoever reads the topic (I5). Only tokens are covered: everything else of a signal is read as ever, and everything else stays when
//! the key is gone.
//!
//! **Who attacks, and what he sees.** Who has the topic, a backup or a broker's disk sees how many one-to-one messages a pseudonym sent, and when, which he
//! sees of its other signals too; which pseudonym of the day before is the same sender's; and, where a message has no contact, that it went to the same
//! recipient as that sender's last one in the range, not to whom. Nothing he sees of a sender's rows depends on what anybody else sent: every message has its
//! answer, whatever came before, as the lack of one would tell of the recipient's own messages (`pipeline/minimize/src/pairs.rs`).
//!
//! Who has the keyring beside it can uncover tokens, and by the order of rows join pseudonyms, as long as the key lives; he has the pair keys too then,
//! with which he can ask about any two numbers. After 72 hours nobody can do either: a batch that is read later has no tokens any more, and its pairs are
//! passed over.
//!
//! The bytes are AES-256-GCM's, as sealed files have them: nonce and tag travel in the batch's metadata, what was encrypted stands in the tokens' places. They
//! are bound to origin, sequence and chunk.

use anyhow::Context as _;
use starling_schemas::ids::{EpochId, Purpose};
use starling_schemas::signals::SignalBatch;
use starling_schemas::time::Entropy;
use starling_store::{KeyId, KeyKind, Keyring, KeyringError, seal, unseal};

/// What [`seal`] writes before the encrypted bytes, and behind them.
const HEAD_BYTES: usize = 5 + 12;
const TAIL_BYTES: usize = 16;

fn key_id(day: EpochId) -> KeyId {
    KeyId { kind: KeyKind::Data, purpose: Purpose::Pair, epoch: day }
}

fn context(batch: &SignalBatch) -> String {
    format!("pairs of {} {} {}", batch.origin, batch.sequence, batch.chunk)
}

/// Covers the tokens of `batch` under the key of `day`; takes them away if that is destroyed.
///
/// # Errors
/// When there is no key and none can be made, or no entropy: then nothing is written.
pub fn cover(keyring: &Keyring, entropy: &dyn Entropy, day: EpochId, batch: &mut SignalBatch) -> anyhow::Result<()> {
    let tokens = batch.tokens()?;
    if tokens.is_empty() {
        return Ok(());
    }
    let key = match keyring.get_or_create(key_id(day)) {
        Ok(key) => key,
        Err(KeyringError::Destroyed(_)) => return Ok(batch.cover(None, None)?),
        Err(error) => return Err(error.into()),
    };
    let sealed = seal(&key, entropy, &context(batch), &tokens)?;
    let (head, rest) = sealed.split_at_checked(HEAD_BYTES).context("what was sealed is too short")?;
    let (body, tail) = rest.split_at_checked(tokens.len()).context("what was sealed is too short")?;
    let hex: String = head.iter().chain(tail).map(|b| format!("{b:02x}")).collect();
    Ok(batch.cover(Some(body), Some(format!("{day} {hex}")))?)
}

/// Uncovers the tokens of `batch`. One whose key is gone, or whose tokens are not what was covered, has none any more: what else it says still counts.
///
/// # Errors
/// When the keyring cannot be read.
pub fn uncover(keyring: &Keyring, batch: &mut SignalBatch) -> anyhow::Result<()> {
    // Bare tokens are nobody's: what wrote them was no sink of ours.
    let tokens = match batch.cover.take().map(|cover| bare(keyring, &cover, batch)).transpose()? {
        Some(Found::Tokens(tokens)) => Some(tokens),
        Some(Found::Expired) | None => None,
        Some(Found::NoKey) => {
            static TOLD: std::sync::Once = std::sync::Once::new();
            TOLD.call_once(|| {
                tracing::warn!(
                    "the key that covers tokens of pairs is not in this keyring, so nobody is found by slow_bulk here: give all jobs one keyring"
                );
            });
            None
        }
        Some(Found::Broken) => {
            tracing::warn!(
                partition = %batch.origin,
                "tokens of pairs are not what was covered; they are passed over. Is another producer writing signals?"
            );
            None
        }
    };
    Ok(batch.cover(tokens.as_deref(), None)?)
}

enum Found {
    Tokens(Vec<u8>),
    Expired,
    NoKey,
    Broken,
}

fn bare(keyring: &Keyring, cover: &str, batch: &SignalBatch) -> anyhow::Result<Found> {
    let Some((day, around)) = parse(cover) else { return Ok(Found::Broken) };
    let key = match keyring.get(key_id(day)) {
        Ok(Some(key)) => key,
        Ok(None) => return Ok(Found::NoKey),
        Err(KeyringError::Destroyed(_)) => return Ok(Found::Expired),
        Err(error) => return Err(error.into()),
    };
    let (head, tail) = around.split_at(HEAD_BYTES);
    let covered = batch.tokens()?;
    let opened = unseal(&key, &context(batch), &[head, &covered, tail].concat());
    Ok(opened.ok().filter(|tokens| tokens.len() == covered.len()).map_or(Found::Broken, Found::Tokens))
}

/// The day of the key; what stands before and behind the encrypted bytes.
fn parse(cover: &str) -> Option<(EpochId, Vec<u8>)> {
    let (day, hex) = cover.split_once(' ')?;
    let byte = |at: usize| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let around: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect::<Option<_>>()?;
    (around.len() == HEAD_BYTES + TAIL_BYTES).then_some((EpochId::parse(day)?, around))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, FixedSizeBinaryArray, RecordBatch, new_null_array};
    use starling_schemas::ids::{PartitionId, Sequence};
    use starling_schemas::rows::SIGNALS;

    use super::*;
    use crate::clock::SystemEntropy;

    const DAY: EpochId = EpochId(20_458);

    fn keyring(dir: &std::path::Path) -> Keyring {
        Keyring::open(dir, Arc::new(SystemEntropy)).expect("keyring")
    }

    /// Two rows with tokens and one without.
    fn batch() -> SignalBatch {
        let tokens: ArrayRef = Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some([1; 8]), None, Some([2; 8])].into_iter(), 8)
                .expect("tokens"),
        );
        let columns = SIGNALS.fields().iter().map(|field| match field.name().as_str() {
            "pair" | "pair_before" => Arc::clone(&tokens),
            _ if field.is_nullable() => new_null_array(field.data_type(), 3),
            _ => arrow::compute::cast(
                &arrow::array::Int64Array::from(vec![1; 3]),
                &match field.data_type() {
                    arrow::datatypes::DataType::Date32 => arrow::datatypes::DataType::Int32,
                    other => other.clone(),
                },
            )
            .and_then(|numbers| arrow::compute::cast(&numbers, field.data_type()))
            .expect("numbers"),
        });
        let rows = RecordBatch::try_new(Arc::clone(&SIGNALS), columns.collect()).expect("rows");
        let origin = PartitionId { source: "events".into(), partition: 3 };
        SignalBatch { origin, sequence: Sequence(9), chunk: 1, rows, cover: None }
    }

    #[test]
    fn i5_no_token_is_bare_in_what_is_written_and_all_are_back_with_the_key() {
        let dir = tempfile::tempdir().expect("dir");
        let keyring = keyring(dir.path());
        let bare = batch();
        let mut written = bare.clone();
        cover(&keyring, &SystemEntropy, DAY, &mut written).expect("covers");
        let bytes = written.encode().expect("encodes");
        let tokens = bare.tokens().expect("tokens");
        assert!(tokens.chunks(8).all(|token| !bytes.windows(8).any(|w| w == token)), "a token is bare");
        assert_ne!(
            written.tokens().expect("tokens").chunks(8).next(),
            written.tokens().expect("tokens").chunks(8).nth(2),
            "equal ones differ"
        );
        let mut back = SignalBatch::decode(&bytes).expect("decodes");
        uncover(&keyring, &mut back).expect("uncovers");
        assert_eq!((back.rows, back.cover), (bare.rows, None));
    }

    #[test]
    fn i7_with_its_key_gone_no_token_comes_back_and_the_rest_stays() {
        let dir = tempfile::tempdir().expect("dir");
        let keyring = keyring(dir.path());
        let mut written = batch();
        cover(&keyring, &SystemEntropy, DAY, &mut written).expect("covers");
        keyring.destroy(key_id(DAY), 5).expect("destroys");
        uncover(&keyring, &mut written).expect("no error");
        assert_eq!((written.tokens().expect("tokens"), written.rows.num_rows()), (Vec::new(), 3));
        // And what is written then has none.
        let mut late = batch();
        cover(&keyring, &SystemEntropy, DAY, &mut late).expect("no error");
        assert_eq!((late.tokens().expect("tokens"), late.cover), (Vec::new(), None));
    }

    #[test]
    fn i8_bare_moved_and_foreign_tokens_are_passed_over() {
        let dir = tempfile::tempdir().expect("dir");
        let keyring = keyring(dir.path());
        let mut covered = batch();
        cover(&keyring, &SystemEntropy, DAY, &mut covered).expect("covers");
        let moved = SignalBatch { chunk: 2, ..covered.clone() };
        let foreign = |cover: &str| SignalBatch { cover: Some(cover.to_owned()), ..covered.clone() };
        let other_day = foreign(&covered.cover.clone().expect("a cover").replace(&DAY.to_string(), "2026-01-09"));
        for mut wrong in [batch(), moved, foreign(""), foreign("2026-01-05 zz"), foreign("2026-01-05 é1"), other_day] {
            uncover(&keyring, &mut wrong).expect("no error");
            assert_eq!((wrong.tokens().expect("tokens"), wrong.rows.num_rows()), (Vec::new(), 3));
        }
    }
}
