//! Answers to questions: one each, for ever (I3). The file is put first, by create-if-absent; who comes second takes the first one's.

use super::Metastore;
use super::database::Turn;
use super::sql::{Row, column, sql};
use super::types::AnswerRecord;
use crate::error::StoreError;

const TABLE: &str = "answers";

impl Metastore {
    /// Records the answer to a question whose file is durable, and returns the record that stands: this one, or the one that was first.
    ///
    /// # Errors
    /// [`StoreError::AnswerWithoutCharge`] if the question was never charged (I2): whatever the file holds, nobody has paid for it.
    /// [`StoreError::Database`]: it may have been recorded.
    pub async fn record_answer(&self, answer: &AnswerRecord) -> Result<AnswerRecord, StoreError> {
        self.database
            .change("recording an answer", Turn::Answers, |tx| async move {
                let charged = sql("SELECT days FROM charges WHERE question = $1 LIMIT 1").bind(&answer.question);
                if tx.fetch_optional(charged).await?.is_none() {
                    return Err(StoreError::AnswerWithoutCharge);
                }
                tx.execute(
                    sql("INSERT INTO answers (question, path, blake3, answered_ms) VALUES ($1, $2, $3, $4) ON \
             CONFLICT (question) DO NOTHING")
                    .bind(&answer.question)
                    .bind(&answer.path)
                    .bind(&answer.blake3)
                    .bind(answer.answered_ms),
                )
                .await?;
                let stands = sql("SELECT question, path, blake3, answered_ms FROM answers WHERE question = $1");
                record(&tx.fetch_one(stands.bind(&answer.question)).await?)
            })
            .await
    }

    /// What a question was answered with, if it was.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn answer(&self, question: &str) -> Result<Option<AnswerRecord>, StoreError> {
        let statement = sql("SELECT question, path, blake3, answered_ms FROM answers WHERE question = $1").bind(question);
        self.database.fetch_all("reading an answer", statement).await?.first().map(record).transpose()
    }

    /// All answers, in order of time.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::UnreadableRow`].
    pub async fn answers(&self) -> Result<Vec<AnswerRecord>, StoreError> {
        let statement =
            sql("SELECT question, path, blake3, answered_ms FROM answers ORDER BY answered_ms, question COLLATE \"C\"");
        self.database.fetch_all("reading answers", statement).await?.iter().map(record).collect()
    }
}

fn record(row: &Row) -> Result<AnswerRecord, StoreError> {
    Ok(AnswerRecord {
        question: column(row, "question", TABLE)?,
        path: column(row, "path", TABLE)?,
        blake3: column(row, "blake3", TABLE)?,
        answered_ms: column(row, "answered_ms", TABLE)?,
    })
}
