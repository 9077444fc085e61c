//! A client of arrow-flight's, call by call, so that each can be made as somebody else or not at all; and ADBC, led by JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::utils::flight_data_to_batches;
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    PutResult, Ticket,
};
use futures::stream;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::codegen::Bytes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::house::{House, Served};
use crate::http_client::PATIENCE;
use crate::support::{sql, workspace};

/// Of what the operator is told of tables, at the command line, all that a product team is told.
pub(crate) const OWN_COLUMNS: &str = "(SELECT * FROM meta.columns WHERE table_schema NOT IN ('billing', 'integrity')) AS c";

/// Runs a test's calls to their end.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(3 * PATIENCE, work).await.expect("within its time") })
}

/// The token of one of [`crate::doors::token`]'s header lines.
pub(crate) fn token(house: &House, name: &str) -> String {
    crate::doors::token(house, name).rsplit(' ').next().expect("a token").to_owned()
}

/// The command of a server with a Flight SQL door and users with tokens; `more` stands under `[flight]`.
pub(crate) fn command(house: &House, more: &str) -> Command {
    command_with(house, &crate::doors::with_tokens(house), more)
}

/// The same with this line under `[postgres]`.
pub(crate) fn command_with(house: &House, users: &str, more: &str) -> Command {
    Served::command_with(house, &format!("[postgres]\n{users}\n[flight]\nlisten = \"127.0.0.1:0\"\n{more}\n"))
}

/// Such a server.
pub(crate) fn served(house: &House, more: &str) -> Served {
    started(command(house, more))
}

pub(crate) fn started(command: Command) -> Served {
    Served::spawn_for(command, &["Console:", "Flight"])
}

/// What an answer was: batches, and what was said beside them.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) told: Vec<Value>,
}

impl Rows {
    /// As `starling sql --format table` shows it.
    pub(crate) fn table(&self) -> String {
        let rows: usize = self.batches.iter().map(RecordBatch::num_rows).sum();
        format!("{}\n{rows} rows\n", pretty_format_batches(&self.batches).expect("text"))
    }
}

/// One connection, with who calls over it.
#[derive(Clone)]
pub(crate) struct Flight {
    pub(crate) client: FlightServiceClient<Channel>,
    pub(crate) authorization: Option<String>,
}

impl Flight {
    pub(crate) async fn nobody(served: &Served) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", served.flight)).expect("an address");
        Self::over(endpoint.connect().await.expect("connects"))
    }

    pub(crate) fn over(channel: Channel) -> Self {
        let client = FlightServiceClient::new(channel).max_decoding_message_size(16 * 1024 * 1024);
        Self { client, authorization: None }
    }

    pub(crate) async fn of(served: &Served, token: &str) -> Self {
        Self::nobody(served).await.with(token)
    }

    /// The same connection, with this token.
    pub(crate) fn with(&self, token: &str) -> Self {
        Self { client: self.client.clone(), authorization: Some(format!("Bearer {token}")) }
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(PATIENCE);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.parse().expect("a value"));
        }
        request
    }

    /// Logs in over this connection; gives the token.
    pub(crate) async fn log_in(&self, name: &str, password: &str) -> Result<String, Status> {
        use base64::Engine as _;
        let said = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
        let own = Self { client: self.client.clone(), authorization: Some(format!("Basic {said}")) };
        let request = own.request(stream::iter([HandshakeRequest::default()]));
        let response = own.client.clone().handshake(request).await?;
        let head = response.metadata().get("authorization").expect("a token").to_str().expect("text").to_owned();
        let mut answers = response.into_inner();
        let payload = answers.message().await?.expect("a message").payload;
        assert_eq!(head.strip_prefix("Bearer ").map(str::as_bytes), Some(&payload[..]));
        Ok(String::from_utf8(payload.to_vec()).expect("text"))
    }

    pub(crate) async fn info(&self, command: &impl ProstMessageExt) -> Result<FlightInfo, Status> {
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        Ok(self.client.clone().get_flight_info(self.request(descriptor)).await?.into_inner())
    }

    pub(crate) async fn plan(&self, sql: &str) -> Result<FlightInfo, Status> {
        self.info(&query(sql)).await
    }

    pub(crate) async fn get(&self, ticket: Ticket) -> Result<Rows, Status> {
        let mut messages = self.client.clone().do_get(self.request(ticket)).await?.into_inner();
        let mut all: Vec<FlightData> = Vec::new();
        while let Some(message) = messages.message().await? {
            all.push(message);
        }
        let told = all.iter().filter(|message| !message.app_metadata.is_empty());
        let told = told.map(|message| serde_json::from_slice(&message.app_metadata).expect("JSON")).collect();
        Ok(Rows { batches: flight_data_to_batches(&all).expect("batches"), told })
    }

    /// What a command's ticket is redeemed for.
    pub(crate) async fn list(&self, command: &impl ProstMessageExt) -> Result<Rows, Status> {
        self.get(ticket(&self.info(command).await?)).await
    }

    pub(crate) async fn ask(&self, sql: &str) -> Result<Rows, Status> {
        self.list(&query(sql)).await
    }

    pub(crate) async fn act(&self, name: &str, body: impl Into<Bytes>) -> Result<Vec<Bytes>, Status> {
        let action = Action { r#type: name.to_owned(), body: body.into() };
        let mut results = self.client.clone().do_action(self.request(action)).await?.into_inner();
        let mut all = Vec::new();
        while let Some(result) = results.message().await? {
            all.push(result.body);
        }
        Ok(all)
    }

    pub(crate) async fn put(&self, messages: Vec<FlightData>) -> Result<Option<PutResult>, Status> {
        self.client.clone().do_put(self.request(stream::iter(messages))).await?.into_inner().message().await
    }

    /// Ends what runs under this ticket.
    pub(crate) async fn cancel(&self, info: &FlightInfo) -> Result<i32, Status> {
        let bodies = self.act("CancelFlightInfo", CancelFlightInfoRequest::new(info.clone()).encode_to_vec()).await?;
        Ok(CancelFlightInfoResult::decode(bodies[0].clone()).expect("a result").status)
    }
}

/// Charges of about this epsilon: each test asks with its own, so that what others ask meanwhile is not counted.
pub(crate) fn charges(house: &House, epsilon: f64) -> usize {
    let (low, high) = (epsilon * 0.97, epsilon * 1.03);
    sql(&house.data, &format!("SELECT question FROM meta.charges WHERE epsilon BETWEEN {low} AND {high}")).len()
}

pub(crate) fn query(sql: &str) -> CommandStatementQuery {
    CommandStatementQuery { query: sql.to_owned(), transaction_id: None }
}

pub(crate) fn ticket(info: &FlightInfo) -> Ticket {
    info.endpoint[0].ticket.clone().expect("a ticket")
}

/// gRPC's code, and the SQLSTATE that the text begins with.
pub(crate) fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.expect_err("refused");
    (status.code(), status.message().get(1..6).unwrap_or_default().to_owned())
}

/// The Python that has ADBC, or why there is none.
pub(crate) fn python() -> Result<PathBuf, String> {
    let script = workspace().join("tests/accounting/python.sh");
    let output = Command::new("bash").arg(script).arg(workspace().join("tests/flight_door/requirements.txt")).output();
    let output = output.map_err(|_| "skipped: no bash".to_owned())?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(PathBuf::from(answer)),
        Some(77) => Err(answer),
        // What is not to be had is one thing; a script that fails is a fault, which must not pass for that.
        _ => panic!("python.sh failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

/// A session of ADBC's; ended by id when it goes out of scope.
pub(crate) struct Adbc {
    child: Child,
    steps: ChildStdin,
    answers: std::io::Lines<BufReader<ChildStdout>>,
}

impl Adbc {
    /// The session, and what came of opening it.
    pub(crate) fn start(uri: &str, environment: &[(&str, &str)]) -> (Self, Value) {
        let mut command = Command::new(python().expect("found before"));
        command.arg("-B").arg(workspace().join("tests/flight_door/adbc.py")).arg(uri).envs(environment.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
        let (steps, out) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut session = Self { child, steps, answers: BufReader::new(out).lines() };
        let opened = session.answer();
        (session, opened)
    }

    pub(crate) fn open(served: &Served, token: &str) -> Self {
        let (session, opened) = Self::start(&format!("grpc://{}", served.flight), &[("TOKEN", token)]);
        assert_eq!(opened, json!({ "open": true }));
        session
    }

    fn answer(&mut self) -> Value {
        serde_json::from_str(&self.answers.next().expect("an answer").expect("text")).expect("JSON")
    }

    pub(crate) fn step(&mut self, step: Value) -> Value {
        writeln!(self.steps, "{step}").expect("takes a step");
        self.answer()
    }
}

impl Drop for Adbc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something holds, without keeping others of this test from their work.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let began = std::time::Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
