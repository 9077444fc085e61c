//! The calls of the protocol. Each begins with the question who it is from; what it may be asked for is one list, and the rest is
//! refused by name.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, Command,
    DoPutPreparedStatementResult, ProstMessageExt as _,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Criteria, Empty, FlightData,
    FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage, PollInfo, PutResult, SchemaAsIpc,
    SchemaResult, Ticket,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use prost::Message as _;
use starling_query::Kind;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::connection::{Life, MESSAGE_BYTES};
use super::status::{not_here, unmade, unreadable};
use super::ticket::{Purpose, Statement, What};
use super::way_in::Caller;
use super::{Door, listings, parameters};
use crate::doors::Refusal;

/// How long a client may take for its parameters.
const PARAMETERS_TIME: Duration = Duration::from_secs(10);
/// What is said of transactions: there is nothing in them to undo.
const NO_TRANSACTIONS: &str =
    "leave autocommit on: a statement changes nothing but what its team has left, and that is not undone";
const SQL_ONLY: &str = "send the statement as SQL text: the gate and the ledger read nothing else";

const CREATE: &str = "CreatePreparedStatement";
const CLOSE: &str = "ClosePreparedStatement";
const CANCEL: &str = "CancelFlightInfo";
/// What may be done by name.
const ACTIONS: [(&str, &str); 3] = [
    (CREATE, "ActionCreatePreparedStatementRequest → ActionCreatePreparedStatementResult"),
    (CLOSE, "ActionClosePreparedStatementRequest → nothing"),
    (CANCEL, "CancelFlightInfoRequest → CancelFlightInfoResult"),
];

/// The protocol over one connection.
pub(super) struct Service {
    pub(super) door: Door,
    pub(super) life: Arc<Life>,
}

/// What a call is answered with, message by message.
type Messages<T> = BoxStream<'static, Result<T, Status>>;

fn once<T: Send + 'static>(message: T) -> Response<Messages<T>> {
    Response::new(Box::pin(stream::iter([Ok(message)])))
}

impl Service {
    /// What a descriptor asks for, and the columns of it.
    async fn planned(&self, caller: &Caller, descriptor: &FlightDescriptor) -> Result<(What, SchemaRef), Refusal> {
        let command = command(&descriptor.cmd)?;
        if listings::is_one(&command) {
            let columns = self.door.in_a_place(caller, async { listings::columns(&command) }).await?;
            return Ok((What::Listing(command.into_any().encode_to_vec()), columns));
        }
        let statement = match command {
            Command::CommandStatementQuery(asked) => {
                no_transaction(asked.transaction_id.as_ref())?;
                Statement::new(asked.query, &[])
            }
            Command::CommandPreparedStatementQuery(asked) => self.prepared(caller, &asked.prepared_statement_handle)?,
            other => return Err(refused(&other)),
        };
        let columns = self.door.columns(caller, &statement).await?;
        Ok((What::Rows(statement), columns))
    }

    /// The statement behind a handle of the caller's own.
    fn prepared(&self, caller: &Caller, handle: &[u8]) -> Result<Statement, Refusal> {
        let opened = self.door.seal.open::<Statement>(Purpose::Handle, &caller.mark, handle, self.door.home.clock.now_ms())?;
        Ok(opened.what)
    }

    fn handle(&self, caller: &Caller, statement: &Statement) -> Result<Bytes, Refusal> {
        let (sealed, _) = self.door.seal.seal(Purpose::Handle, &caller.mark, statement, self.door.home.clock.now_ms())?;
        Ok(sealed.into())
    }

    /// The parameters of a statement, each with its kind where the statement tells it. Wants a place of the caller's.
    async fn kinds(&self, caller: &Caller, sql: &str) -> Result<Vec<Option<Kind>>, Refusal> {
        Ok(self.door.engine.parameters_as(&caller.who, sql).await?)
    }

    async fn prepare(&self, caller: &Caller, body: &[u8]) -> Result<ActionCreatePreparedStatementResult, Refusal> {
        let asked: ActionCreatePreparedStatementRequest = packed(body)?;
        no_transaction(asked.transaction_id.as_ref())?;
        let kinds = self.door.in_a_place(caller, self.kinds(caller, &asked.query)).await?;
        let kinds = kinds.iter().map(|kind| kind.unwrap_or(Kind::Text));
        // Only the types of these are looked at; the handle holds none of them.
        let stand_ins: Vec<_> = kinds.clone().map(Kind::stand_in).collect();
        let columns = self.door.columns(caller, &Statement::new(asked.query.clone(), &stand_ins)).await?;
        let field = |(at, kind): (usize, Kind)| Field::new(format!("${at}"), parameters::type_of(kind), true);
        let told = Schema::new((1..).zip(kinds).map(field).collect::<Vec<_>>());
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: self.handle(caller, &Statement::new(asked.query, &[]))?,
            dataset_schema: as_ipc(&columns)?,
            parameter_schema: as_ipc(&told)?,
        })
    }

    /// Ends what runs under the tickets of an answer, as far as they are the caller's.
    fn cancel(&self, caller: &Caller, body: &[u8]) -> Result<CancelFlightInfoResult, Refusal> {
        let asked = CancelFlightInfoRequest::decode(body).map_err(|_| unreadable("the request"))?;
        let mut any = false;
        for ticket in asked.info.iter().flat_map(|info| &info.endpoint).filter_map(|endpoint| endpoint.ticket.as_ref()) {
            let now_ms = self.door.home.clock.now_ms();
            let opened = self.door.seal.open::<What>(Purpose::Ticket, &caller.mark, &ticket.ticket, now_ms)?;
            any |= self.door.running.end(opened.seal);
        }
        // One that is not asked for costs nothing, and one that is done cannot be ended.
        Ok(CancelFlightInfoResult::new(if any { CancelStatus::Cancelling } else { CancelStatus::NotCancellable }))
    }

    /// Takes the values of a prepared statement's parameters: they go into a new handle. What comes is kept until it is whole,
    /// so the caller's place is taken before.
    async fn bind(
        &self,
        caller: &Caller,
        request: Request<Streaming<FlightData>>,
    ) -> Result<DoPutPreparedStatementResult, Refusal> {
        self.door.in_a_place(caller, self.bound(request)).await
    }

    async fn bound(&self, request: Request<Streaming<FlightData>>) -> Result<DoPutPreparedStatementResult, Refusal> {
        let (metadata, extensions, messages) = request.into_parts();
        let taking = tokio::time::timeout(PARAMETERS_TIME, taken(messages)).await;
        let (command, messages) =
            taking.map_err(|_| Refusal::new("57014", "the parameters did not come in time", "send them at once"))??;
        let asked = match command {
            Command::CommandPreparedStatementQuery(asked) => asked,
            other => return Err(refused(&other)),
        };
        // All of it is there only now; see `Door::caller`.
        let caller = self.door.recognise(metadata.as_ref(), extensions.get())?;
        let statement = self.prepared(&caller, &asked.prepared_statement_handle)?;
        let kinds = self.kinds(&caller, &statement.sql).await?;
        let values = parameters::read(messages, kinds).await?;
        let handle = self.handle(&caller, &Statement::new(statement.sql, &values))?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }
}

/// All messages of an upload, once its first one says what it is for; anything but parameters is refused before the rest is
/// waited for.
async fn taken(mut messages: Streaming<FlightData>) -> Result<(Command, Vec<FlightData>), Refusal> {
    let mut all: Vec<FlightData> = Vec::new();
    let (mut bytes, mut found) = (0, None);
    while let Some(message) = messages.message().await.map_err(|_| unreadable("an upload"))? {
        if found.is_none() {
            let descriptor = message.flight_descriptor.as_ref().ok_or_else(|| unreadable("an upload without a command"))?;
            match command(&descriptor.cmd)? {
                known @ Command::CommandPreparedStatementQuery(_) => found = Some(known),
                other => return Err(refused(&other)),
            }
        }
        bytes += message.encoded_len();
        if bytes > MESSAGE_BYTES || all.len() > 16 {
            return Err(Refusal::new("54000", "the parameters are too long", "shorten them"));
        }
        all.push(message);
    }
    Ok((found.ok_or_else(|| unreadable("an empty upload"))?, all))
}

/// What a command is; a Substrait plan is known by its type alone, and not decoded.
fn command(bytes: &[u8]) -> Result<Command, Refusal> {
    let any = Any::decode(bytes).map_err(|_| unreadable("the command"))?;
    if any.type_url.contains("Substrait") {
        return Err(no_plans());
    }
    Command::try_from(any).map_err(|_| unreadable("the command"))
}

/// The message of an action's body.
fn packed<T: arrow_flight::sql::ProstMessageExt>(body: &[u8]) -> Result<T, Refusal> {
    let any = Any::decode(body).map_err(|_| unreadable("the request"))?;
    any.unpack().ok().flatten().ok_or_else(|| unreadable("the request"))
}

fn no_transaction(named: Option<&Bytes>) -> Result<(), Refusal> {
    if named.is_some_and(|id| !id.is_empty()) { Err(not_here("transactions", NO_TRANSACTIONS)) } else { Ok(()) }
}

fn no_plans() -> Refusal {
    not_here("Substrait plans", SQL_ONLY)
}

/// Why a command is not answered.
fn refused(command: &Command) -> Refusal {
    match command {
        Command::CommandStatementSubstraitPlan(_) | Command::ActionCreatePreparedSubstraitPlanRequest(_) => no_plans(),
        Command::CommandStatementUpdate(_) | Command::CommandPreparedStatementUpdate(_) => {
            not_here("updates", "nothing is changed over SQL; ask with a query")
        }
        Command::CommandStatementIngest(_) => not_here(
            "bulk ingestion",
            "nothing is written here; data comes through `starling ingest`, or as a file of a dataset of your own",
        ),
        _ => not_here("the command", "ask with CommandStatementQuery, a prepared statement, or for what there is"),
    }
}

fn as_ipc(schema: &Schema) -> Result<Bytes, Refusal> {
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into().map_err(|_| unmade())?;
    Ok(bytes)
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Messages<HandshakeResponse>;
    type ListFlightsStream = Messages<FlightInfo>;
    type DoGetStream = Messages<FlightData>;
    type DoPutStream = Messages<PutResult>;
    type DoExchangeStream = Messages<FlightData>;
    type DoActionStream = Messages<arrow_flight::Result>;
    type ListActionsStream = Messages<ActionType>;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        let response = self.door.log_in(&request.metadata().clone().into_headers()).await?;
        self.life.called(Instant::now());
        Ok(response)
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let caller = self.door.caller(&request)?;
        let descriptor = request.into_inner();
        let (what, columns) = self.planned(&caller, &descriptor).await?;
        // What was looked at is said again, and nothing else of what the client wrote.
        let FlightDescriptor { r#type, cmd, .. } = descriptor;
        let descriptor = FlightDescriptor { r#type, cmd, path: Vec::new() };
        Ok(Response::new(self.door.info(&caller, &what, &columns, descriptor)?))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let caller = self.door.caller(&request)?;
        let (_, columns) = self.planned(&caller, request.get_ref()).await?;
        Ok(Response::new(SchemaResult { schema: as_ipc(&columns)? }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let caller = self.door.caller(&request)?;
        Ok(Response::new(self.door.redeem(&caller, &request.get_ref().ticket, &self.life).await?))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let caller = self.door.caller(&request)?;
        let bound = self.bind(&caller, request).await?;
        Ok(once(PutResult { app_metadata: bound.encode_to_vec().into() }))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let caller = self.door.caller(&request)?;
        let Action { r#type: name, body } = request.into_inner();
        let body = match name.as_str() {
            CREATE => self.prepare(&caller, &body).await?.as_any().encode_to_vec(),
            CLOSE => {
                let asked: ActionClosePreparedStatementRequest = packed(&body)?;
                // A handle that has ended is as good as closed, so its user is answered all the same: opened at the beginning of
                // time, it tells whose it is, and nothing else.
                self.door.seal.open::<Statement>(Purpose::Handle, &caller.mark, &asked.prepared_statement_handle, i64::MIN)?;
                return Ok(Response::new(Box::pin(stream::empty())));
            }
            CANCEL => self.cancel(&caller, &body)?.encode_to_vec(),
            "CreatePreparedSubstraitPlan" => return Err(no_plans().into()),
            "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => {
                return Err(not_here("transactions", NO_TRANSACTIONS).into());
            }
            "CancelQuery" => return Err(not_here("CancelQuery", "use CancelFlightInfo, or give up the DoGet").into()),
            _ => return Err(not_here("the action", "ListActions tells what there is").into()),
        };
        Ok(once(arrow_flight::Result { body: body.into() }))
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.door.caller(&request)?;
        let told = ACTIONS.map(|(name, about)| Ok(ActionType { r#type: name.to_owned(), description: about.to_owned() }));
        Ok(Response::new(Box::pin(stream::iter(told))))
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.door.caller(&request)?;
        Err(not_here("ListFlights", "CommandGetTables tells what there is").into())
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        self.door.caller(&request)?;
        Err(not_here("PollFlightInfo", "use GetFlightInfo, which plans and is quick").into())
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.door.caller(&request)?;
        Err(not_here("DoExchange", "use GetFlightInfo and DoGet").into())
    }
}
