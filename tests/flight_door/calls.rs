//! Who a call is from, asked at each of them; and what tickets and handles are worth, which is nothing by themselves.

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionBeginTransactionRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    ActionCreatePreparedSubstraitPlanRequest, Any, CommandGetTables, CommandPreparedStatementQuery, CommandStatementIngest,
    CommandStatementQuery, CommandStatementSubstraitPlan, CommandStatementUpdate, ProstMessageExt, SubstraitPlan,
};
use arrow_flight::{Criteria, Empty, FlightData, FlightDescriptor, Ticket};
use futures::stream;
use prost::Message as _;
use tokio::sync::oneshot;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::client::{Flight, charges, command_with, query, refusal, run, served, started, ticket, token};
use crate::house::{House, PASSWORD};

const ROW: &str = "SELECT 40 + 2 AS n";

/// What each of the protocol's calls but the handshake is answered with.
async fn every_call(flight: &Flight) -> Vec<(&'static str, Result<(), Status>)> {
    let descriptor = || FlightDescriptor::new_cmd(query(ROW).as_any().encode_to_vec());
    let upload = || stream::iter([FlightData::new().with_descriptor(descriptor())]);
    let mut client: FlightServiceClient<_> = flight.client.clone();
    vec![
        ("ListFlights", client.list_flights(flight.request(Criteria::default())).await.map(drop)),
        ("GetFlightInfo", client.get_flight_info(flight.request(descriptor())).await.map(drop)),
        ("PollFlightInfo", client.poll_flight_info(flight.request(descriptor())).await.map(drop)),
        ("GetSchema", client.get_schema(flight.request(descriptor())).await.map(drop)),
        ("DoGet", client.do_get(flight.request(Ticket::new("c4n4ry"))).await.map(drop)),
        ("DoPut", client.do_put(flight.request(upload())).await.map(drop)),
        ("DoExchange", client.do_exchange(flight.request(upload())).await.map(drop)),
        ("DoAction", flight.act("CancelFlightInfo", "").await.map(drop)),
        ("ListActions", client.list_actions(flight.request(Empty {})).await.map(drop)),
    ]
}

pub(crate) fn nobody_is_answered_whatever_it_calls(house: &House) {
    let served = served(house, "");
    let good = token(house, "ada");
    run(async {
        let nobody = Flight::nobody(&served).await;
        let mut shown = vec![None];
        for wrong in ["Bearer wrong", "Bearer", "Bearer ", "", "Basic YWRhOng=", &good, &format!("Bearer {good}x")] {
            shown.push(Some(wrong.to_owned()));
        }
        for authorization in shown {
            let flight = Flight { client: nobody.client.clone(), authorization: authorization.clone() };
            for (call, answer) in every_call(&flight).await {
                assert_eq!(refusal(answer), (Code::Unauthenticated, "28000".to_owned()), "{call}: {authorization:?}");
            }
        }
        // Two of them are none: one was planted.
        let mut request = nobody.with(&good).request(Empty {});
        request.metadata_mut().append("authorization", format!("Bearer {good}").parse().expect("a value"));
        assert_eq!(refusal(nobody.client.clone().list_actions(request).await).0, Code::Unauthenticated);
        // Somebody is.
        let somebody = nobody.with(&good);
        assert!(somebody.ask(ROW).await.expect("rows").table().contains("42"));
        for (call, answer) in every_call(&somebody).await {
            assert_ne!(answer.err().map(|status| status.code()), Some(Code::Unauthenticated), "{call}");
        }
    });
}

pub(crate) fn every_call_is_authorised_anew(house: &House) {
    let file = house.own_users("flight-changing.toml");
    let users = |arguments: &[&str]| house.users_in(&file, arguments);
    let (ada, joe) = (users(&["token", "ada"]), users(&["token", "joe"]));
    let served = started(command_with(house, &format!("users_file = {:?}", file.display().to_string()), ""));
    let nobody = |answer| assert_eq!(refusal(answer), (Code::Unauthenticated, "28000".to_owned()));
    run(async {
        let ada = Flight::of(&served, &ada).await;
        let joe = ada.with(&joe);
        // A token that is revoked between the plan and the rows.
        let (first, second) = (ada.plan(ROW).await.expect("plans"), ada.plan(ROW).await.expect("plans"));
        assert!(ada.get(ticket(&first)).await.expect("rows").table().contains("42"));
        users(&["token", "ada", "--revoke"]);
        nobody(ada.get(ticket(&second)).await.map(drop));
        nobody(ada.plan(ROW).await.map(drop));
        // With a new one the old ticket is hers again: it never lent a right, and takes none away.
        let again = ada.with(&users(&["token", "ada"]));
        assert!(again.get(ticket(&second)).await.expect("rows").table().contains("42"));
        // A user who is removed in between, on the same connection.
        let plan = joe.plan(ROW).await.expect("plans");
        users(&["remove", "joe"]);
        nobody(joe.get(ticket(&plan)).await.map(drop));
        nobody(joe.cancel(&plan).await.map(drop));
        // One who comes back under the name is somebody else.
        users(&["add", "joe", "--role", "product", "--team", "engineering"]);
        let another = joe.with(&users(&["token", "joe"]));
        assert_eq!(refusal(another.get(ticket(&plan)).await), (Code::PermissionDenied, "42501".to_owned()));
        // A file that cannot be used is nobody's way in.
        std::fs::rename(&file, house.dir.path().join("flight-gone.toml")).expect("moves");
        assert_eq!(refusal(again.ask(ROW).await), (Code::Unavailable, "58030".to_owned()));
    });
}

/// Tickets out, data in, as the generated client has them. That one sends no head without a message.
struct Tickets;

impl Codec for Tickets {
    type Encode = Ticket;
    type Decode = FlightData;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Tickets {
    type Item = Ticket;
    type Error = Status;

    fn encode(&mut self, item: Ticket, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::Message::encode(&item, into).map_err(|_| Status::internal("a ticket"))
    }
}

impl Decoder for Tickets {
    type Item = FlightData;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<FlightData>, Status> {
        <FlightData as prost::Message>::decode(from).map(Some).map_err(|_| Status::internal("data"))
    }
}

/// A DoGet whose head is sent at once, and whose ticket when it is there.
async fn late(channel: Channel, token: String, ticket: impl Future<Output = Ticket> + Send + 'static) -> Result<(), Status> {
    let request = Flight::over(channel.clone()).with(&token).request(stream::once(ticket));
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.expect("ready");
    let path = PathAndQuery::from_static("/arrow.flight.protocol.FlightService/DoGet");
    let mut rows = grpc.streaming(request, path, Tickets).await?.into_inner();
    while rows.message().await?.is_some() {}
    Ok(())
}

pub(crate) fn a_head_is_worth_nothing_once_its_token_is_revoked(house: &House) {
    let file = house.own_users("flight-heads.toml");
    let users = |arguments: &[&str]| house.users_in(&file, arguments);
    let ada = users(&["token", "ada"]);
    let served = started(command_with(house, &format!("users_file = {:?}", file.display().to_string()), ""));
    run(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", served.flight)).expect("an address");
        let channel = endpoint.connect().await.expect("connects");
        let flight = Flight::over(channel.clone()).with(&ada);
        let plan = flight.plan(ROW).await.expect("plans");
        let begin = async || {
            let ((begun, has_begun), (go, may_go)) = (oneshot::channel::<()>(), oneshot::channel::<()>());
            let ticket = ticket(&plan);
            let message = async move {
                let _ = begun.send(());
                let _ = may_go.await;
                ticket
            };
            let call = tokio::spawn(late(channel.clone(), ada.clone(), message));
            has_begun.await.expect("its head is sent");
            (go, call)
        };
        let (first, early) = begin().await;
        let (second, too_late) = begin().await;
        // Heads come in the order in which they were sent: when this one is answered, those were somebody's.
        assert!(flight.ask(ROW).await.expect("rows").table().contains("42"));
        first.send(()).expect("it waits");
        assert!(early.await.expect("no panic").is_ok(), "a message may come later than its head");
        users(&["token", "ada", "--revoke"]);
        second.send(()).expect("it waits");
        assert_eq!(refusal(too_late.await.expect("no panic")), (Code::Unauthenticated, "28000".to_owned()));
    });
}

pub(crate) fn a_session_of_a_login_ends_with_its_user(house: &House) {
    let file = house.own_users("flight-sessions.toml");
    let users = |arguments: &[&str]| house.users_in(&file, arguments);
    let line = format!("users_file = {:?}", file.display().to_string());
    let (served, other) = (started(command_with(house, &line, "")), started(command_with(house, &line, "")));
    run(async {
        let nobody = Flight::nobody(&served).await;
        let ada = nobody.with(&nobody.log_in("ada", PASSWORD).await.expect("logs in"));
        let twice = nobody.with(&nobody.log_in("ada", PASSWORD).await.expect("logs in"));
        assert_ne!(ada.authorization, twice.authorization, "each login has its own");
        assert!(ada.ask(ROW).await.expect("rows").table().contains("42"));
        // It is this process's.
        let there = Flight::of(&other, ada.authorization.as_deref().unwrap().rsplit(' ').next().unwrap()).await;
        assert_eq!(refusal(there.ask(ROW).await).0, Code::Unauthenticated);
        let plan = ada.plan(ROW).await.expect("plans");
        users(&["add", "ada", "--replace", "--role", "auditor", "--team", "audit"]);
        for session in [&ada, &twice] {
            assert_eq!(refusal(session.get(ticket(&plan)).await).0, Code::Unauthenticated, "her role is another");
        }
        let again = nobody.with(&nobody.log_in("ada", PASSWORD).await.expect("logs in"));
        assert_eq!(refusal(again.ask("SELECT count(*) FROM private.person_day").await).0, Code::PermissionDenied);
    });
}

pub(crate) fn a_wrong_password_and_an_unknown_name_look_the_same(house: &House) {
    let served = served(house, "");
    run(async {
        let nobody = Flight::nobody(&served).await;
        let mut told = Vec::new();
        for (name, password) in
            [("ada", "wrong-horse-battery"), ("c4n4ry", PASSWORD), ("ada", ""), ("", ""), (&"x".repeat(100), PASSWORD)]
        {
            let status = nobody.log_in(name, password).await.expect_err("refused");
            told.push((status.code(), status.message().to_owned()));
        }
        assert!(told.iter().all(|one| one == &told[0]), "{told:?}");
        assert!(told[0].0 == Code::Unauthenticated && told[0].1.starts_with("[28P01]"), "{told:?}");
        // What is no login at all.
        for authorization in [None, Some("Basic"), Some("Basic !!"), Some("Basic YWRh"), Some("Bearer x")] {
            let flight = Flight { client: nobody.client.clone(), authorization: authorization.map(str::to_owned) };
            let answer = flight.client.clone().handshake(flight.request(stream::pending())).await;
            assert_eq!(refusal(answer.map(drop)), (Code::Unauthenticated, "28000".to_owned()), "{authorization:?}");
        }
    });
}

async fn prepare(flight: &Flight, sql: &str) -> Result<ActionCreatePreparedStatementResult, Status> {
    let asked = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
    let bodies = flight.act("CreatePreparedStatement", asked.as_any().encode_to_vec()).await?;
    Ok(Any::decode(bodies[0].clone()).expect("packed").unpack().expect("a result").expect("of this type"))
}

pub(crate) fn a_ticket_is_its_users_own_and_lends_no_right(house: &House) {
    let (served, other) = (served(house, ""), self::served(house, ""));
    let denied = (Code::PermissionDenied, "42501".to_owned());
    run(async {
        let ada = Flight::of(&served, &token(house, "ada")).await;
        let (joe, ivy) = (ada.with(&token(house, "joe")), ada.with(&token(house, "ivy")));
        let question =
            "SELECT COUNT(DISTINCT person) AS people FROM private.person_day WHERE day = '2026-01-06' SETTINGS epsilon = 0.013";
        // Whoever may not ask, and whoever may for another team: neither by another's ticket.
        let plan = ada.plan(question).await.expect("plans");
        let charges = || charges(house, 0.013);
        for thief in [&joe, &ivy] {
            assert_eq!(refusal(thief.get(ticket(&plan)).await), denied);
            assert_eq!(refusal(thief.cancel(&plan).await), denied);
        }
        assert_eq!(charges(), 0, "a stolen ticket costs nobody anything");
        assert!(ada.get(ticket(&plan)).await.is_ok() && charges() == 1, "hers it is all the same");
        // Of what is there for everybody it is no other.
        let listing = ada.info(&CommandGetTables::default()).await.expect("a listing");
        assert_eq!(refusal(ivy.get(ticket(&listing)).await), denied);
        assert!(ada.get(ticket(&listing)).await.expect("rows").table().contains("person_day"));
        // Changed by a byte, cut, made up, or what it was sent for.
        let sealed = ticket(&ada.plan(ROW).await.expect("plans")).ticket.to_vec();
        let mut tries =
            vec![Vec::new(), sealed[..31].to_vec(), sealed[..sealed.len() - 1].to_vec(), query(ROW).as_any().encode_to_vec()];
        for at in [0, 31, 32, sealed.len() / 2, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            tries.push(changed);
        }
        for (at, made_up) in tries.into_iter().enumerate() {
            assert_eq!(refusal(ada.get(Ticket::new(made_up)).await), denied, "{at}");
        }
        // Another process's, and a handle in the place of a ticket, and the other way round.
        let there = Flight::of(&other, &token(house, "ada")).await;
        assert_eq!(refusal(there.get(Ticket::new(sealed.clone())).await), denied);
        let handle = prepare(&ada, ROW).await.expect("prepares").prepared_statement_handle;
        assert_eq!(refusal(ada.get(Ticket::new(handle.clone())).await), denied);
        let of = |handle: &[u8]| CommandPreparedStatementQuery { prepared_statement_handle: handle.to_vec().into() };
        assert_eq!(refusal(ada.info(&of(&sealed)).await), denied);
        assert_eq!(refusal(joe.info(&of(&handle)).await), denied, "another's handle");
        assert!(ada.list(&of(&handle)).await.expect("rows").table().contains("42"));
        // Hers it is as often as she likes, and each time it is asked.
        for _ in 0..2 {
            assert!(ada.get(Ticket::new(sealed.clone())).await.expect("rows").table().contains("42"));
        }
    });
}

pub(crate) fn plans_updates_and_transactions_are_refused_by_name(house: &House) {
    let served = served(house, "");
    let unsupported = (Code::Unimplemented, "0A000".to_owned());
    run(async {
        let ada = Flight::of(&served, &token(house, "ada")).await;
        let plan = SubstraitPlan { plan: "c4n4ry".into(), version: "0.1".to_owned() };
        let substrait = CommandStatementSubstraitPlan { plan: Some(plan.clone()), transaction_id: None };
        let update = CommandStatementUpdate { query: "DELETE FROM stats.calls_daily".to_owned(), transaction_id: None };
        let ingest = CommandStatementIngest { table: "c4n4ry".to_owned(), ..Default::default() };
        let in_one = CommandStatementQuery { transaction_id: Some("1".into()), ..query(ROW) };
        let prepared = ActionCreatePreparedSubstraitPlanRequest { plan: Some(plan), transaction_id: None };
        for any in
            [substrait.as_any(), update.as_any(), ingest.as_any(), in_one.as_any(), ActionBeginTransactionRequest {}.as_any()]
        {
            let descriptor = FlightDescriptor::new_cmd(any.encode_to_vec());
            let info = ada.client.clone().get_flight_info(ada.request(descriptor.clone())).await;
            let status = info.expect_err("refused");
            assert!(!status.message().contains("c4n4ry"), "{status:?}");
            assert_eq!(refusal::<()>(Err(status)), unsupported, "{}", any.type_url);
            let schema = ada.client.clone().get_schema(ada.request(descriptor.clone())).await;
            assert_eq!(refusal(schema), unsupported, "{}", any.type_url);
            // An upload is refused by its first message; nobody waits for the rest.
            let first = FlightData::new().with_descriptor(descriptor);
            let upload = stream::StreamExt::chain(stream::iter([first]), stream::pending());
            assert_eq!(refusal(ada.client.clone().do_put(ada.request(upload)).await), unsupported, "{}", any.type_url);
        }
        // A plan is not even decoded: what is no plan at all is told the same.
        let broken = Any { type_url: CommandStatementSubstraitPlan::type_url().to_owned(), value: "\u{7f}".into() };
        let descriptor = FlightDescriptor::new_cmd(broken.encode_to_vec());
        let told = ada.client.clone().get_flight_info(ada.request(descriptor)).await.expect_err("refused");
        assert!(told.message().contains("Substrait plans: that is not done here. Hint: send the statement as SQL"), "{told:?}");
        for (name, body) in [
            ("CreatePreparedSubstraitPlan", prepared.as_any().encode_to_vec()),
            ("BeginTransaction", ActionBeginTransactionRequest {}.as_any().encode_to_vec()),
            ("EndTransaction", Vec::new()),
            ("BeginSavepoint", Vec::new()),
            ("EndSavepoint", Vec::new()),
            ("CancelQuery", Vec::new()),
            ("c4n4ry", Vec::new()),
        ] {
            let status = ada.act(name, body).await.expect_err("refused");
            assert!(!status.message().contains("c4n4ry"), "{status:?}");
            assert_eq!(refusal::<()>(Err(status)), unsupported, "{name}");
        }
        for (call, answer) in every_call(&ada).await {
            if ["ListFlights", "PollFlightInfo", "DoExchange"].contains(&call) {
                assert_eq!(refusal(answer), unsupported, "{call}");
            }
        }
        // Messages that are none.
        for bytes in [&b"\xff\xff\xff"[..], b"", &Any { type_url: "c4n4ry".to_owned(), value: "".into() }.encode_to_vec()] {
            let answer = ada.client.clone().get_flight_info(ada.request(FlightDescriptor::new_cmd(bytes.to_vec()))).await;
            let status = answer.expect_err("refused");
            assert!(
                matches!(status.code(), Code::InvalidArgument | Code::Unimplemented) && !status.message().contains("c4n4ry"),
                "{status:?}"
            );
        }
        for action in ["CreatePreparedStatement", "ClosePreparedStatement"] {
            assert_eq!(refusal(ada.act(action, "\u{7f}").await), (Code::InvalidArgument, "08P01".to_owned()), "{action}");
        }
    });
}
