//! Statements: what their columns are, what they are redeemed for, and their rows on the way.

use std::future::Future;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use prost_types::Timestamp;
use serde_json::json;
use starling_query::Answer;
use tokio::time::Instant;
use tonic::Status;

use super::Door;
use super::connection::{Life, OnItsWay};
use super::running::Run;
use super::status::{cancelled, unmade};
use super::ticket::{Purpose, Statement, What};
use super::way_in::Caller;
use crate::doors::places::Place;
use crate::doors::{Refusal, STOPPING, left, stopped};

/// What is sent at once, about.
const PIECE_BYTES: usize = 64 * 1024;

/// What a ticket came to, and what is held until it has been taken.
struct Held {
    _place: Place,
    run: Run,
    way: OnItsWay,
    /// What a private answer cost and leaves; said with the columns, and again with the first rows.
    told: Bytes,
    sent: u64,
}

impl Door {
    /// Waits for work, as long as the server does not stop.
    pub(super) async fn within<T>(&self, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let mut stop = self.stop.clone();
        let stopping = async {
            stopped(&mut stop).await;
            tokio::time::sleep(STOPPING).await;
        };
        tokio::select! {
            done = work => done,
            () = stopping => Err(Refusal::stopping()),
        }
    }

    /// A place of the caller's for work that is done when it is answered.
    pub(super) async fn in_a_place<T>(
        &self,
        caller: &Caller,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let mut place = self.places.take(&caller.who.name)?;
        let done = self.within(work).await;
        place.has_ended();
        done
    }

    /// The columns that a statement would be answered with. Tables that it names may be read to be planned over; no row
    /// goes out, and nothing is charged or drawn.
    pub(super) async fn columns(&self, caller: &Caller, statement: &Statement) -> Result<SchemaRef, Refusal> {
        let values = statement.values();
        let work = async { Ok(self.engine.columns_bound(&caller.who, &statement.sql, &values).await?) };
        self.in_a_place(caller, work).await
    }

    /// What a client is told of an answer before it asks for it: its columns, and a ticket.
    pub(super) fn info(
        &self,
        caller: &Caller,
        what: &What,
        columns: &Schema,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Refusal> {
        let (sealed, ends_ms) = self.seal.seal(Purpose::Ticket, &caller.mark, what, self.home.clock.now_ms())?;
        let nanos = i32::try_from(ends_ms.rem_euclid(1_000) * 1_000_000).unwrap_or_default();
        let endpoint = FlightEndpoint::new()
            .with_ticket(Ticket::new(sealed))
            .with_expiration_time(Timestamp { seconds: ends_ms.div_euclid(1_000), nanos });
        let info = FlightInfo::new().try_with_schema(columns).map_err(|_| unmade())?;
        Ok(info.with_endpoint(endpoint).with_descriptor(descriptor).with_ordered(true))
    }

    /// What a ticket is redeemed for: the statement is asked here, once, and charged as it is everywhere.
    pub(super) async fn redeem(
        &self,
        caller: &Caller,
        ticket: &[u8],
        life: &Arc<Life>,
    ) -> Result<BoxStream<'static, Result<FlightData, Status>>, Status> {
        let opened = self.seal.open::<What>(Purpose::Ticket, &caller.mark, ticket, self.home.clock.now_ms())?;
        let mut place = self.places.take(&caller.who.name)?;
        let mut run = self.running.enter(opened.seal);
        let work = async {
            self.scribe.write(&caller.who).await?;
            match opened.what {
                What::Rows(statement) => self.ask(caller, &statement).await,
                What::Listing(command) => self.list(caller, &command).await,
            }
        };
        let answer = tokio::select! {
            answer = self.within(work) => answer,
            () = run.ended() => {
                place.has_ended();
                tracing::info!("a statement over Flight SQL was cancelled by its ticket");
                return Err(cancelled());
            }
        };
        place.has_ended();
        let Answer { schema, batches, notes, questions } = answer?;
        let told =
            if notes.is_empty() { Bytes::new() } else { json!({ "notices": notes, "questions": questions }).to_string().into() };
        let held = Held { _place: place, run, way: life.answer(Instant::now()), told, sent: 0 };
        Ok(on_its_way(schema, batches, held))
    }

    async fn ask(&self, caller: &Caller, statement: &Statement) -> Result<Answer, Refusal> {
        let mut answer = self.engine.query_bound(&caller.who, &statement.sql, &statement.values()).await?;
        if !answer.notes.is_empty() {
            let left = left(&self.engine, &caller.who, &answer.notes).await;
            answer.notes.extend(left);
        }
        Ok(answer)
    }
}

/// An answer in pieces; its place is given back with the last one, or when the client has gone.
fn on_its_way(schema: SchemaRef, batches: Vec<RecordBatch>, held: Held) -> BoxStream<'static, Result<FlightData, Status>> {
    let encoder = FlightDataEncoderBuilder::new()
        .with_max_flight_data_size(PIECE_BYTES)
        .with_schema(schema)
        .build(stream::iter(batches.into_iter().map(Ok)));
    let pieces = stream::unfold((encoder, Some(held)), |(mut encoder, held)| async move {
        let mut held = held?;
        if held.run.is_ended() {
            tracing::info!("an answer over Flight SQL was cancelled by its ticket");
            return Some((Err(cancelled()), (encoder, None)));
        }
        match encoder.next().await? {
            Ok(mut piece) => {
                held.way.taken(Instant::now());
                // The columns come first, then rows; clients show the one or the other.
                if held.sent < 2 {
                    piece.app_metadata = held.told.clone();
                }
                held.sent += 1;
                Some((Ok(piece), (encoder, Some(held))))
            }
            Err(_) => Some((Err(unmade().into()), (encoder, None))),
        }
    });
    Box::pin(pieces)
}
