//! One client's session: the simple and the extended protocol over the engine.
//!
//! A statement is either one of the short list in `small`, or goes to the gate as it is. While it runs three things can end it, and all by
//! dropping the engine's future: a cancel request, the client's going, the process's stopping.
//!
//! ```text
//!   Query ───────────────────────────► ask ─► (notices) rows CommandComplete ─► ReadyForQuery
//!   Parse ─► Bind ─► Describe ─► Execute ┘
//!              │        └ columns_bound: planned, nothing read or charged
//!              └ parameters: values of $1, $2, …, which the engine writes into the statement before the gate sees it
//! ```

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse, ReadyForQuery, TransactionStatus};
use pgwire::messages::{PgWireBackendMessage as Answer, PgWireFrontendMessage as Message};
use starling_query::{Principal, Value};
use tokio::sync::{Semaphore, watch};

use super::opening::{Badge, Opened};
use super::parameters::{self, Slot};
use super::rows::{self, Formats, Rows};
use super::small::{self, Small};
use super::wire::{Lost, MESSAGE_BYTES, Wire};
use super::{Calls, Door};
use crate::doors::{Class, Refusal, STOPPING, left, stopped};

/// How long a session may say nothing.
const IDLE: Duration = Duration::from_secs(3600);
/// How long a client may take for all rows of an answer.
const ANSWER_TIME: Duration = Duration::from_secs(600);
/// Prepared statements of a session, and bytes of their texts together.
const STATEMENTS: usize = 256;
const STATEMENT_BYTES: usize = 1024 * 1024;
/// Portals of a session: each may hold the rest of an answer.
const PORTALS: usize = 4;

/// A prepared statement.
struct Statement {
    sql: String,
    small: Option<Small>,
    /// Types that the driver names for its parameters.
    named: Vec<u32>,
    /// Its parameters, once somebody wanted to know.
    slots: OnceLock<Vec<Slot>>,
    /// The columns that were told of it, before it had values.
    told: OnceLock<SchemaRef>,
}

impl Statement {
    fn of(sql: String, named: Vec<u32>) -> Self {
        Self { small: small::known(&sql), sql, named, slots: OnceLock::new(), told: OnceLock::new() }
    }

    /// Nothing but spaces and semicolons.
    fn is_empty(&self) -> bool {
        self.sql.chars().all(|c| c == ';' || c.is_whitespace())
    }
}

/// A statement that is bound, and what is left of its answer.
struct Portal {
    statement: Arc<Statement>,
    values: Vec<Value>,
    formats: Formats,
    /// What the client was told of its columns.
    told: Option<SchemaRef>,
    rows: Option<Rows>,
}

/// What a statement comes to.
enum Outcome {
    Empty,
    Done(&'static str),
    Rows { schema: SchemaRef, rows: Rows, notes: Vec<String> },
}

/// Why a step of a session did not come to its end.
enum Stop {
    Lost(Lost),
    Refused(Refusal),
    /// The session is over; its client is told.
    Over(Refusal),
}

impl From<Lost> for Stop {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn refused<T>(code: &'static str, reason: &str, hint: &str) -> Result<T, Stop> {
    Err(Stop::Refused(Refusal::new(code, reason, hint)))
}

struct Session {
    wire: Wire,
    who: Arc<Principal>,
    badge: Badge,
    turns: Arc<Semaphore>,
    calls: Calls,
    door: Arc<Door>,
    stop: watch::Receiver<bool>,
    statements: HashMap<String, Arc<Statement>>,
    portals: HashMap<String, Portal>,
    transaction: TransactionStatus,
    /// How long a statement may take, where the client has said so; the gate has a limit of its own.
    timeout: Option<Duration>,
    /// After an error in the extended protocol everything up to the next Sync is passed over.
    skipping: bool,
}

/// Serves a session to its end.
///
/// # Errors
/// [`Lost`], when the client did not say good-bye.
pub(super) async fn serve(opened: Opened, door: Arc<Door>, stop: watch::Receiver<bool>) -> Result<(), Lost> {
    let Opened { wire, who, badge, calls } = opened;
    let mut session = Session {
        wire,
        turns: door.turns.of(&who.name),
        who,
        badge,
        calls,
        door,
        stop,
        statements: HashMap::new(),
        portals: HashMap::new(),
        transaction: TransactionStatus::Idle,
        timeout: None,
        skipping: false,
    };
    session.ready().await?;
    session.run().await
}

impl Session {
    async fn run(&mut self) -> Result<(), Lost> {
        loop {
            let message = tokio::select! {
                biased;
                () = stopped(&mut self.stop) => {
                    self.wire.fatal(&Refusal::new("57P01", "the server is stopping", "connect again in a while")).await;
                    return Ok(());
                }
                next = tokio::time::timeout(IDLE, self.wire.next(MESSAGE_BYTES)) => match next {
                    Ok(Ok(message)) => message,
                    Ok(Err(Lost::TooLong)) => {
                        let reason = format!("a message has more than {MESSAGE_BYTES} bytes");
                        self.wire.fatal(&Refusal::new("54000", reason, "shorten the statement")).await;
                        return Err(Lost::TooLong);
                    }
                    Ok(Err(lost)) => return Err(lost),
                    Err(_) => {
                        self.wire.fatal(&Refusal::new("57P05", "nothing was asked for an hour", "connect again")).await;
                        return Ok(());
                    }
                },
            };
            let extended = match &message {
                Message::Terminate(_) => return Ok(()),
                Message::Query(_) => false,
                _ => true,
            };
            if self.skipping && !matches!(message, Message::Sync(_)) {
                continue;
            }
            match self.step(message).await {
                Ok(()) => {}
                Err(Stop::Lost(lost)) => return Err(lost),
                Err(Stop::Over(refusal)) => {
                    self.wire.fatal(&refusal).await;
                    return Ok(());
                }
                Err(Stop::Refused(refusal)) => {
                    self.wire.error(&refusal).await?;
                    self.fail();
                    if extended {
                        // Now: a Flush that the client has sent behind it is passed over.
                        self.wire.flush().await?;
                        self.skipping = true;
                    } else {
                        self.ready().await?;
                    }
                }
            }
        }
    }

    /// An error ends what a transaction block may do.
    fn fail(&mut self) {
        if self.transaction == TransactionStatus::Transaction {
            self.transaction = TransactionStatus::Error;
        }
    }

    async fn ready(&mut self) -> Result<(), Lost> {
        self.wire.send(Answer::ReadyForQuery(ReadyForQuery::new(self.transaction))).await?;
        self.wire.flush().await
    }

    async fn step(&mut self, message: Message) -> Result<(), Stop> {
        match message {
            Message::Query(query) => self.simple(query.query).await,
            Message::Parse(parse) => self.parse(parse).await,
            Message::Bind(bind) => self.bind(bind).await,
            Message::Describe(describe) => self.describe(describe).await,
            Message::Execute(execute) => self.execute(execute).await,
            Message::Close(close) => self.close(close).await,
            Message::Flush(_) => Ok(self.wire.flush().await?),
            Message::Sync(_) => {
                self.skipping = false;
                if self.transaction == TransactionStatus::Idle {
                    self.portals.clear();
                }
                Ok(self.ready().await?)
            }
            // What a client sends for a COPY that was refused.
            Message::CopyData(_) | Message::CopyDone(_) | Message::CopyFail(_) => Ok(()),
            _ => Err(Stop::Lost(Lost::Malformed)),
        }
    }

    async fn simple(&mut self, sql: String) -> Result<(), Stop> {
        // As in PostgreSQL a simple query ends the unnamed statement and portal.
        self.statements.remove("");
        self.portals.remove("");
        let outcome = self.outcome(&Statement::of(sql, Vec::new()), &[], Formats::default()).await?;
        match outcome {
            Outcome::Empty => self.wire.send(Answer::EmptyQueryResponse(EmptyQueryResponse::new())).await?,
            Outcome::Done(tag) => self.complete(tag.to_owned()).await?,
            Outcome::Rows { schema, mut rows, notes } => {
                let description = rows::description(&schema, &Formats::default())?;
                self.tell(&notes).await?;
                self.wire.send(Answer::RowDescription(description)).await?;
                let sent = self.send_rows(&mut rows, usize::MAX).await?;
                self.complete(format!("SELECT {sent}")).await?;
            }
        }
        Ok(self.ready().await?)
    }

    async fn parse(&mut self, parse: Parse) -> Result<(), Stop> {
        let name = parse.name.unwrap_or_default();
        if !name.is_empty() && self.statements.contains_key(&name) {
            return refused("42P05", "there is a prepared statement of this name", "close it first, or choose another name");
        }
        let size = |name: &str, sql: &str, types: usize| name.len() + sql.len() + 4 * types;
        let held = self.statements.iter().map(|(name, statement)| size(name, &statement.sql, statement.named.len()));
        let bytes = held.sum::<usize>() + size(&name, &parse.query, parse.type_oids.len());
        if self.statements.len() >= STATEMENTS || bytes > STATEMENT_BYTES {
            return refused("54000", "the session holds too many prepared statements", "close some, or send DISCARD ALL");
        }
        self.statements.insert(name, Arc::new(Statement::of(parse.query, parse.type_oids)));
        Ok(self.wire.send(Answer::ParseComplete(ParseComplete::new())).await?)
    }

    fn statement(&self, name: Option<&str>) -> Result<Arc<Statement>, Stop> {
        match self.statements.get(name.unwrap_or_default()) {
            Some(statement) => Ok(Arc::clone(statement)),
            None => refused("26000", "there is no prepared statement of this name", "parse it first"),
        }
    }

    async fn bind(&mut self, bind: Bind) -> Result<(), Stop> {
        let statement = self.statement(bind.statement_name.as_deref())?;
        let values = if statement.named.is_empty() && bind.parameters.is_empty() {
            Vec::new()
        } else {
            parameters::read(&self.slots(&statement).await?, &bind.parameter_format_codes, &bind.parameters)?
        };
        let Some(formats) = Formats::of(bind.result_column_format_codes) else {
            return refused("08P01", "a format is neither text nor binary", "this is a fault of the client's driver");
        };
        let name = bind.portal_name.unwrap_or_default();
        if self.portals.len() >= PORTALS && !self.portals.contains_key(&name) {
            return refused("54000", "the session holds too many portals", "read one to its end, or close it");
        }
        self.portals.insert(name, Portal { statement, values, formats, told: None, rows: None });
        Ok(self.wire.send(Answer::BindComplete(BindComplete::new())).await?)
    }

    async fn describe(&mut self, describe: Describe) -> Result<(), Stop> {
        let name = describe.name.unwrap_or_default();
        let (statement, values, formats) = if describe.target_type == b'S' {
            let statement = self.statement(Some(&name))?;
            let slots = self.slots(&statement).await?;
            let oids = slots.iter().map(|slot| slot.oid).collect();
            self.wire.send(Answer::ParameterDescription(ParameterDescription::new(oids))).await?;
            (statement, slots.iter().map(|slot| slot.kind.stand_in()).collect(), Formats::default())
        } else {
            let Some(portal) = self.portals.get(&name) else { return no_portal() };
            (Arc::clone(&portal.statement), portal.values.clone(), portal.formats.clone())
        };
        let schema = self.columns(&statement, &values).await?;
        let Some(schema) = schema else { return Ok(self.wire.send(Answer::NoData(NoData::new())).await?) };
        let description = rows::description(&schema, &formats)?;
        if describe.target_type == b'S' {
            statement.told.get_or_init(|| schema);
        } else if let Some(portal) = self.portals.get_mut(&name) {
            portal.told = Some(schema);
        }
        Ok(self.wire.send(Answer::RowDescription(description)).await?)
    }

    /// The parameters of a statement.
    async fn slots(&mut self, statement: &Statement) -> Result<Vec<Slot>, Stop> {
        if let Some(slots) = statement.slots.get() {
            return Ok(slots.clone());
        }
        let told = if statement.small.is_some() || statement.is_empty() {
            Vec::new()
        } else {
            self.usable()?;
            let (door, who) = (Arc::clone(&self.door), Arc::clone(&self.who));
            self.ask(async { Ok(door.engine.parameters_as(&who, &statement.sql).await?) }).await?
        };
        let slots = parameters::slots(&told, &statement.named)?;
        Ok(statement.slots.get_or_init(|| slots).clone())
    }

    /// The columns of a statement's answer; `None` if it has none.
    async fn columns(&mut self, statement: &Statement, values: &[Value]) -> Result<Option<SchemaRef>, Stop> {
        match &statement.small {
            _ if statement.is_empty() => Ok(None),
            Some(Small::Row(name, _)) => Ok(Some(one_text(name))),
            Some(Small::ShowTimeout) => Ok(Some(one_text("statement_timeout"))),
            Some(_) => Ok(None),
            None => {
                self.usable()?;
                let (door, who) = (Arc::clone(&self.door), Arc::clone(&self.who));
                self.ask(async { Ok(door.engine.columns_bound(&who, &statement.sql, values).await?) }).await.map(Some)
            }
        }
    }

    async fn execute(&mut self, execute: Execute) -> Result<(), Stop> {
        let name = execute.name.unwrap_or_default();
        // Taken out while it is in work: a portal that fails is gone.
        let Some(mut portal) = self.portals.remove(&name) else { return no_portal() };
        let most = usize::try_from(execute.max_rows).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
        let mut rows = match portal.rows.take() {
            Some(rows) => {
                self.usable()?;
                rows
            }
            None => match self.outcome(&portal.statement, &portal.values, portal.formats.clone()).await? {
                Outcome::Empty => {
                    return Ok(self.wire.send(Answer::EmptyQueryResponse(EmptyQueryResponse::new())).await?);
                }
                Outcome::Done(tag) => return Ok(self.complete(tag.to_owned()).await?),
                Outcome::Rows { schema, rows, notes } => {
                    rows::description(&schema, &portal.formats)?;
                    let differ = |told: &SchemaRef| !rows::same(told, &schema);
                    if portal.told.as_ref().is_some_and(differ) || portal.statement.told.get().is_some_and(differ) {
                        return refused("XX000", "the answer has other columns than was said", "report this");
                    }
                    self.tell(&notes).await?;
                    rows
                }
            },
        };
        let sent = self.send_rows(&mut rows, most).await?;
        if rows.more() {
            portal.rows = Some(rows);
            self.wire.send(Answer::PortalSuspended(PortalSuspended::new())).await?;
        } else {
            // Read to its end it gives nothing more; bound again it is asked again.
            portal.rows = Some(Rows::new(Vec::new(), Formats::default()));
            self.complete(format!("SELECT {sent}")).await?;
        }
        self.portals.insert(name, portal);
        Ok(())
    }

    async fn close(&mut self, close: Close) -> Result<(), Stop> {
        let name = close.name.unwrap_or_default();
        if close.target_type == b'S' {
            self.statements.remove(&name);
        } else {
            self.portals.remove(&name);
        }
        Ok(self.wire.send(Answer::CloseComplete(CloseComplete::new())).await?)
    }

    /// In a failed block nothing is done until its end, and nothing for whoever would not get in any more: a user who is gone, whose role, team or password
    /// is another, whose certificate has expired.
    fn usable(&self) -> Result<(), Stop> {
        lets_in(&self.door, &self.badge, &self.who).map_err(|refusal| match refusal.class() {
            Class::Nobody => Stop::Over(refusal),
            _ => Stop::Refused(refusal),
        })?;
        if self.transaction == TransactionStatus::Error {
            return refused("25P02", "the transaction block has failed; nothing is done until its end", "send ROLLBACK");
        }
        Ok(())
    }

    async fn outcome(&mut self, statement: &Statement, values: &[Value], formats: Formats) -> Result<Outcome, Stop> {
        if statement.is_empty() {
            return Ok(Outcome::Empty);
        }
        let Some(small) = &statement.small else {
            self.usable()?;
            let (door, who) = (Arc::clone(&self.door), Arc::clone(&self.who));
            // As one, so that a cancel that comes while the log is written is not lost.
            let work = async {
                door.scribe.write(&who).await?;
                Ok(door.engine.query_bound(&who, &statement.sql, values).await?)
            };
            let answer = self.ask(work).await?;
            let mut notes = answer.notes;
            if !notes.is_empty() {
                let left = self.ask(async { Ok(left(&door.engine, &who, &notes).await) }).await?;
                notes.extend(left);
            }
            return Ok(Outcome::Rows { schema: answer.schema, rows: Rows::new(answer.batches, formats), notes });
        };
        match small {
            Small::Rollback => {
                self.transaction = TransactionStatus::Idle;
                return Ok(Outcome::Done("ROLLBACK"));
            }
            Small::Commit => {
                let failed = self.transaction == TransactionStatus::Error;
                self.transaction = TransactionStatus::Idle;
                return Ok(Outcome::Done(if failed { "ROLLBACK" } else { "COMMIT" }));
            }
            Small::RollbackTo => {
                if self.transaction == TransactionStatus::Error {
                    self.transaction = TransactionStatus::Transaction;
                }
                return Ok(Outcome::Done("ROLLBACK"));
            }
            _ => self.usable()?,
        }
        match small {
            Small::Timeout(time) => self.timeout = time.map(Duration::from_millis),
            Small::ShowTimeout => {
                let shown = self.timeout.map_or_else(|| "0".to_owned(), |time| format!("{}ms", time.as_millis()));
                return one_row("statement_timeout", &shown, formats);
            }
            Small::Begin => self.transaction = TransactionStatus::Transaction,
            Small::Forget(tag) => {
                self.statements.clear();
                self.portals.clear();
                if *tag == "DISCARD ALL" {
                    self.timeout = None;
                }
            }
            Small::ForgetOne(name) => {
                self.statements.remove(name);
            }
            Small::Row(name, value) => return one_row(name, value, formats),
            Small::Nothing(_) | Small::Commit | Small::Rollback | Small::RollbackTo | Small::Savepoint(_) => {}
        }
        Ok(Outcome::Done(match small {
            Small::Begin => "BEGIN",
            Small::Nothing(tag) | Small::Forget(tag) | Small::Savepoint(tag) => tag,
            Small::Timeout(_) => "SET",
            _ => "DEALLOCATE",
        }))
    }

    /// Waits for its turn and for the engine, as long as somebody waits for the answer.
    async fn ask<T>(&mut self, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Stop> {
        let (turns, door, who, badge) =
            (Arc::clone(&self.turns), Arc::clone(&self.door), Arc::clone(&self.who), self.badge.clone());
        let work = async {
            let waits = turns.available_permits() == 0;
            let _turn = turns.acquire().await.map_err(|_| Refusal::stopping())?;
            // Whoever has waited may not be let in any more.
            if waits {
                lets_in(&door, &badge, &who)?;
            }
            work.await
        };
        let called = self.calls.called();
        let mut stop = self.stop.clone();
        let stopped = async {
            stopped(&mut stop).await;
            tokio::time::sleep(STOPPING).await;
        };
        let late = async {
            match self.timeout {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = work => Ok(answer?),
            () = called => refused("57014", "the statement was cancelled by its client", "a charge that was made stands: asked again it is paid for"),
            () = late => refused("57014", "the statement took longer than statement_timeout", "SET statement_timeout = 0 leaves the gate's own limit"),
            lost = self.wire.gone() => Err(Stop::Lost(lost)),
            () = stopped => Err(Stop::Refused(Refusal::stopping())),
        }
    }

    async fn tell(&mut self, notes: &[String]) -> Result<(), Lost> {
        for note in notes {
            self.wire.notice(note).await?;
        }
        Ok(())
    }

    async fn complete(&mut self, tag: String) -> Result<(), Lost> {
        self.wire.send(Answer::CommandComplete(CommandComplete::new(tag))).await
    }

    /// Sends at most so many rows; gives their number.
    async fn send_rows(&mut self, rows: &mut Rows, most: usize) -> Result<usize, Stop> {
        let wire = &mut self.wire;
        let sending = async {
            let mut sent = 0;
            while sent < most {
                let Some(row) = rows.next()? else { break };
                wire.send(Answer::DataRow(row)).await?;
                sent += 1;
            }
            Ok(sent)
        };
        tokio::time::timeout(ANSWER_TIME, sending).await.unwrap_or(Err(Stop::Lost(Lost::TooSlow)))
    }
}

/// Whether somebody would still be let in.
///
/// # Errors
/// 28000 when not; 58030 when the users file cannot be used.
fn lets_in(door: &Door, badge: &Badge, who: &Principal) -> Result<(), Refusal> {
    let users = door.users.read().map_err(|error| {
        tracing::error!(error = format!("{error:#}"), "nothing is served over PostgreSQL");
        Refusal::new("58030", "the users file cannot be used", "see the log of `starling serve`")
    })?;
    if badge.is_good(who, &users, door.home.clock.now_ms()) {
        return Ok(());
    }
    let reason = "what this session was opened with lets nobody in any more";
    Err(Refusal::new("28000", reason, "connect again; if that is refused, ask whoever runs `starling users`"))
}

fn no_portal<T>() -> Result<T, Stop> {
    refused("34000", "there is no portal of this name", "bind it first")
}

fn one_row(name: &str, value: &str, formats: Formats) -> Result<Outcome, Stop> {
    let schema = one_text(name);
    let column = Arc::new(arrow::array::StringArray::from(vec![value]));
    let batch = arrow::array::RecordBatch::try_new(Arc::clone(&schema), vec![column]);
    let batch = batch.map_err(|_| Refusal::new("XX000", "the answer could not be made", "report this"))?;
    Ok(Outcome::Rows { schema, rows: Rows::new(vec![batch], formats), notes: Vec::new() })
}

fn one_text(name: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, true)]))
}
