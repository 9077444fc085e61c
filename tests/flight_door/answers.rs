//! Answers: the same rows and the same words as everywhere, what a private question costs and when, and what may be seen.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray as _, Date32Array, Float64Array, Int64Array, NullArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any,
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, DoPutPreparedStatementResult, ProstMessageExt as _, SqlInfo,
};
use arrow_flight::utils::batches_to_flight_data;
use arrow_flight::{FlightDescriptor, IpcMessage, SchemaResult};
use prost::Message as _;
use serde_json::json;
use tonic::{Code, Status};

use crate::client::{Flight, OWN_COLUMNS, charges, refusal, run, served, ticket, token};
use crate::house::{House, refused_statements};
use crate::support::{sql, starling, succeed};

pub(crate) fn rows_and_columns_are_those_of_starling_sql(house: &House) {
    let served = served(house, "");
    run(async {
        let ada = Flight::of(&served, &token(house, "ada")).await;
        let typed = "SELECT CAST(1 AS SMALLINT) a, 9007199254740993 b, CAST(0.5 AS REAL) c, 0.1 d, DATE '2026-01-05' e, \
                     TIMESTAMP '2026-01-05 10:00:00.5' f, 'é' g, true h, NULL i \
                     UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL ORDER BY 2 NULLS LAST";
        let tables = ["stats.people_served_daily", "stats.calls_daily", OWN_COLUMNS, "meta.metrics", "meta.releases"];
        let statements = tables.map(|table| format!("SELECT * FROM {table} ORDER BY 1, 2, 3, 4"));
        for statement in statements.iter().map(String::as_str).chain([typed, "SELECT 1 AS n WHERE false", "EXPLAIN SELECT 1"]) {
            let info = ada.plan(statement).await.expect("plans");
            let rows = ada.get(ticket(&info)).await.expect("rows");
            let mut command = starling();
            command.args(["sql", "--format", "table", "--data-dir"]).arg(&house.data).arg(statement);
            // An answer without rows is shown with its columns there.
            if !rows.batches.is_empty() {
                assert_eq!(rows.table(), succeed(&mut command), "{statement}");
            }
            // What was told before is what came, comments and all.
            let told = Arc::new(info.clone().try_decode_schema().expect("columns"));
            assert!(rows.batches.iter().all(|batch| batch.schema() == told), "{statement}");
            let descriptor = info.flight_descriptor.clone().expect("what was asked");
            let schema: SchemaResult =
                ada.client.clone().get_schema(ada.request(descriptor)).await.expect("columns").into_inner();
            assert_eq!(&Schema::try_from(&schema).expect("columns"), told.as_ref(), "{statement}");
            assert!(info.ordered && info.endpoint.len() == 1 && info.endpoint[0].expiration_time.is_some(), "{info:?}");
        }
        let comments = ada.plan("SELECT * FROM stats.calls_daily").await.expect("plans").try_decode_schema().expect("columns");
        assert!(comments.fields().iter().any(|field| !field.metadata().is_empty()), "columns have their comments");
        // An answer of many messages.
        let many = "SELECT a.day, a.country, b.country AS other, lpad(a.country, 60, '-') AS wide \
                    FROM stats.people_served_daily a, stats.people_served_daily b, (VALUES (1), (2)) v(n) LIMIT 100000";
        let rows = ada.ask(many).await.expect("rows");
        assert_eq!(rows.batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 100_000);
        assert!(rows.batches.len() > 10 && rows.told.is_empty(), "{}", rows.batches.len());
    });
}

pub(crate) fn refused_statements_are_refused_alike_at_every_door(house: &House) {
    let served = served(house, "");
    let canary = house.dir.path().join("canary-flight.csv");
    std::fs::write(&canary, "a\n4917012345678\n").expect("writes");
    let folder = house.dir.path().join("out-flight");
    std::fs::create_dir_all(&folder).expect("folder");
    let mut statements: Vec<String> = ["refused", "private_refused"]
        .iter()
        .flat_map(|list| refused_statements(list))
        .map(|statement| {
            statement.replace("{canary}", &canary.display().to_string()).replace("{dir}", &folder.display().to_string())
        })
        .collect();
    statements
        .extend(["SELECT 1 / 0", "SELECT CAST('4917012345678x' AS INT)", "SELECT nothing FROM meta.budget"].map(str::to_owned));
    run(async {
        let mut checked = 0;
        for user in ["ada", "ivy"] {
            let (flight, header) = (Flight::of(&served, &token(house, user)).await, crate::doors::token(house, user));
            for statement in &statements {
                let ours = flight.ask(statement).await;
                let theirs = served.ask(&[&header], statement);
                if theirs.status == 200 {
                    assert!(ours.is_ok(), "{user}: {statement}: {ours:?}");
                    continue;
                }
                let told = theirs.json();
                let text = |name: &str| told[name].as_str().expect("text").to_owned();
                let status = ours.expect_err(statement);
                assert_eq!(
                    status.message(),
                    format!("[{}] {}. Hint: {}", text("code"), text("reason"), text("hint")),
                    "{statement}"
                );
                let expected = match (theirs.status, text("code").as_str()) {
                    (400, "0A000") => Code::Unimplemented,
                    (400, _) => Code::InvalidArgument,
                    (403, _) => Code::PermissionDenied,
                    (408, _) => Code::DeadlineExceeded,
                    (429, _) => Code::ResourceExhausted,
                    (500, _) => Code::Internal,
                    (503, _) => Code::Unavailable,
                    other => panic!("{other:?}: {statement}"),
                };
                assert_eq!(status.code(), expected, "{statement}");
                assert!(!status.message().contains("4917012345678"), "{statement}");
                checked += 1;
            }
        }
        assert!(checked >= 600, "{checked}");
    });
    assert_eq!(std::fs::read_dir(&folder).expect("folder").count(), 0, "nothing was written");
}

pub(crate) fn a_private_question_is_charged_once_when_its_ticket_is_redeemed(house: &House) {
    let served = served(house, "");
    let charges = || charges(house, 0.05);
    run(async {
        let joe = Flight::of(&served, &token(house, "joe")).await;
        let (poor, ivy) = (joe.with(&token(house, "poor")), joe.with(&token(house, "ivy")));
        let question = "SELECT platform, COUNT(DISTINCT person) AS people FROM private.person_day WHERE day = '2026-01-05' \
                        GROUP BY platform ORDER BY platform SETTINGS epsilon = 0.05";
        // Its price, and its columns, for nothing.
        let priced = joe.ask(&format!("EXPLAIN PRIVACY {question}")).await.expect("priced");
        assert!(!priced.batches.is_empty() && priced.told.is_empty());
        let before = charges();
        let mut plans = Vec::new();
        for _ in 0..3 {
            plans.push(joe.plan(question).await.expect("plans"));
        }
        let columns = plans[0].clone().try_decode_schema().expect("columns");
        assert_eq!(columns.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["platform", "people"]);
        assert_eq!(charges(), before, "what is planned costs nothing");
        let rows = joe.get(ticket(&plans[0])).await.expect("rows");
        assert_eq!(rows.batches[0].schema().as_ref(), &columns);
        // Said with the columns, and again with the first rows.
        assert_eq!(rows.told.len(), 2);
        let notices = rows.told[1]["notices"].to_string();
        assert!(notices.contains("private.person_day: cost rho") && notices.contains("team engineering has rho"), "{notices}");
        assert_eq!(rows.told[0], rows.told[1]);
        let id = rows.told[0]["questions"][0].as_str().expect("a question").to_owned();
        let own = || sql(&house.data, &format!("SELECT who FROM meta.charges WHERE question LIKE '%{id}%'"));
        assert_eq!(own(), [json!({ "who": "engineering" })], "its team pays, once");
        let after = charges();
        // The same ticket, another, and the same question at another door: free, with the same numbers.
        for ticket in [ticket(&plans[0]), ticket(&plans[1])] {
            let again = joe.get(ticket).await.expect("rows");
            assert_eq!(again.table(), rows.table());
            assert!(again.told[0]["notices"].to_string().contains("free"), "{:?}", again.told);
        }
        let http = served.ask(&[&crate::doors::token(house, "joe")], question).json();
        assert!(http["notices"].to_string().contains("free") && http["question"] == json!(id), "{}", http["notices"]);
        assert_eq!((own().len(), charges()), (1, after));
        // A team that has nothing, a role that may not ask, and more than there is: told when it is asked for, and unpaid.
        let other = "SELECT COUNT(*) FROM private.person_day WHERE day = '2026-01-06'";
        let told = poor.ask(other).await.expect_err("refused");
        assert!(told.code() == Code::PermissionDenied && told.message().contains("no allotment"), "{told:?}");
        assert_eq!(refusal(ivy.plan(other).await), (Code::PermissionDenied, "42501".to_owned()), "not even planned");
        let dear = joe.ask(&format!("{other} SETTINGS epsilon = 0.9")).await;
        assert_eq!(refusal(dear), (Code::ResourceExhausted, "53400".to_owned()));
        assert_eq!((charges(), crate::client::charges(house, 0.9)), (after, 0));
        // Who asks for nothing private is told nothing.
        assert!(joe.ask("SELECT 1").await.expect("rows").told.is_empty());
    });
}

struct Prepared {
    handle: Vec<u8>,
    columns: Schema,
    parameters: Schema,
}

impl Prepared {
    async fn of(flight: &Flight, sql: &str) -> Result<Self, Status> {
        let asked = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
        let bodies = flight.act("CreatePreparedStatement", asked.as_any().encode_to_vec()).await?;
        let any = Any::decode(bodies[0].clone()).expect("packed");
        let told: ActionCreatePreparedStatementResult = any.unpack().expect("a result").expect("of this type");
        let schema = |bytes| Schema::try_from(IpcMessage(bytes)).expect("columns");
        Ok(Self {
            handle: told.prepared_statement_handle.to_vec(),
            columns: schema(told.dataset_schema),
            parameters: schema(told.parameter_schema),
        })
    }

    fn query(&self) -> CommandPreparedStatementQuery {
        CommandPreparedStatementQuery { prepared_statement_handle: self.handle.clone().into() }
    }

    /// The statement with these values, which its new handle holds.
    async fn bind(&self, flight: &Flight, columns: Vec<ArrayRef>) -> Result<CommandPreparedStatementQuery, Status> {
        let named = columns.into_iter().enumerate().map(|(at, column)| (at.to_string(), column, true));
        let batch = RecordBatch::try_from_iter_with_nullable(named).expect("a row");
        let mut messages = batches_to_flight_data(&batch.schema(), vec![batch]).expect("encodes");
        messages[0].flight_descriptor = Some(FlightDescriptor::new_cmd(self.query().as_any().encode_to_vec()));
        let answer = flight.put(messages).await?.expect("an answer");
        let bound = DoPutPreparedStatementResult::decode(answer.app_metadata).expect("a result");
        Ok(CommandPreparedStatementQuery { prepared_statement_handle: bound.prepared_statement_handle.expect("a new handle") })
    }
}

fn text(value: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![value]))
}

pub(crate) fn values_are_bound_as_literals_and_priced_as_such(house: &House) {
    let served = served(house, "");
    run(async {
        let joe = Flight::of(&served, &token(house, "joe")).await;
        let statement =
            "SELECT day, country, value FROM stats.people_served_daily WHERE day = $1 AND value > $2 ORDER BY 1, 2, 3";
        let prepared = Prepared::of(&joe, statement).await.expect("prepares");
        let types: Vec<&DataType> = prepared.parameters.fields().iter().map(|field| field.data_type()).collect();
        assert_eq!(types.len(), 2, "{types:?}");
        let written = statement.replace("$1", "'2026-01-05'").replace("$2", "0.5");
        let expected = joe.ask(&written).await.expect("rows");
        assert!(!expected.batches.is_empty());
        assert_eq!(expected.batches[0].schema().as_ref(), &prepared.columns, "told before it had values");
        let bound = prepared.bind(&joe, vec![text("2026-01-05"), Arc::new(Float64Array::from(vec![0.5]))]).await.expect("binds");
        assert_eq!(joe.list(&bound).await.expect("rows").table(), expected.table());
        // Without its values it is not asked, and the first handle has none.
        assert!(joe.list(&prepared.query()).await.is_err());
        // Every kind, as it came.
        let kinds = Prepared::of(&joe, "SELECT $1::text a, $2::bigint b, $3::date c, $4::timestamp d, $5::text e")
            .await
            .expect("prepares");
        let types: Vec<DataType> = kinds.parameters.fields().iter().map(|field| field.data_type().clone()).collect();
        let moment = DataType::Timestamp(TimeUnit::Microsecond, None);
        assert_eq!(types, [DataType::Utf8, DataType::Int64, DataType::Date32, moment, DataType::Utf8]);
        let bound = kinds.bind(
            &joe,
            vec![
                text("it's; DROP TABLE x --"),
                Arc::new(Int64Array::from(vec![-7])),
                Arc::new(Date32Array::from(vec![20_458])),
                Arc::new(TimestampMicrosecondArray::from(vec![1_767_607_200_500_000])),
                Arc::new(NullArray::new(1)),
            ],
        );
        let shown = joe.list(&bound.await.expect("binds")).await.expect("rows");
        let table = shown.table();
        for part in ["it's; DROP TABLE x --", "-7", "2026-01-05", "2026-01-05T10:00:00.5"] {
            assert!(table.contains(part), "{part}: {table}");
        }
        assert!(shown.batches[0].column(4).is_null(0));
        // The same question, whichever way its values came: paid once.
        let private = "SELECT COUNT(DISTINCT person) AS people FROM private.person_day WHERE day = $1 AND platform = 'android' \
                       SETTINGS epsilon = 0.03";
        let question = Prepared::of(&joe, private).await.expect("prepares");
        let charges = || charges(house, 0.03);
        let before = charges();
        let bound = question.bind(&joe, vec![text("2026-01-05")]).await.expect("binds");
        let paid = joe.list(&bound).await.expect("rows");
        assert_eq!(charges(), before + 1);
        let again = joe.ask(&private.replace("$1", "'2026-01-05'")).await.expect("rows");
        assert_eq!((again.table(), charges()), (paid.table(), before + 1));
        // What cannot be bound; no error holds a value.
        for (columns, code) in [
            (vec![text("c4n4ry")], "08P01"),
            (vec![text("c4n4ry"), text("c4n4ry\0")], "22P02"),
            (
                vec![Arc::new(StringArray::from(vec!["c4n4ry", "c4n4ry"])) as ArrayRef, Arc::new(Int64Array::from(vec![1, 2]))],
                "0A000",
            ),
            (vec![text("c4n4ry"), arrow::array::new_null_array(&DataType::new_list(DataType::Int64, true), 1)], "0A000"),
        ] {
            let status = prepared.bind(&joe, columns).await.expect_err("refused");
            assert!(status.message().starts_with(&format!("[{code}]")) && !status.message().contains("c4n4ry"), "{status:?}");
        }
        let wrong = prepared.bind(&joe, vec![text("c4n4ry"), text("c4n4ry")]).await.expect("binds");
        let status = joe.list(&wrong).await.expect_err("no number");
        assert!(!status.message().contains("c4n4ry"), "{status:?}");
        // Statements that the gate refuses are not prepared, and a closed one was one's own.
        let refused = Prepared::of(&joe, "DELETE FROM stats.calls_daily WHERE day = $1").await.err().expect("refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
        let closing = |handle: &[u8]| ActionClosePreparedStatementRequest { prepared_statement_handle: handle.to_vec().into() };
        assert!(
            joe.act("ClosePreparedStatement", closing(&prepared.handle).as_any().encode_to_vec())
                .await
                .expect("closes")
                .is_empty()
        );
        let ada = joe.with(&token(house, "ada"));
        let foreign = ada.act("ClosePreparedStatement", closing(&prepared.handle).as_any().encode_to_vec());
        assert_eq!(refusal(foreign.await).0, Code::PermissionDenied);
    });
}

pub(crate) fn p32_a_role_sees_what_it_may_read_and_no_trace_of_the_rest(house: &House) {
    let served = served(house, "");
    run(async {
        let nobody = Flight::nobody(&served).await;
        for (user, schemas) in [
            ("ada", vec!["business", "meta", "private", "stats"]),
            ("pia", vec!["meta", "stats"]),
            ("ivy", vec!["business", "integrity", "meta", "stats"]),
            ("eng", vec!["meta", "stats"]),
            ("aud", vec!["meta", "stats"]),
            ("bil", vec!["billing", "business", "meta", "stats"]),
        ] {
            let flight = nobody.with(&token(house, user));
            let column = |rows: &crate::client::Rows, at: usize| -> Vec<String> {
                let each = |batch: &RecordBatch| {
                    batch.column(at).as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>()
                };
                rows.batches.iter().flat_map(each).collect()
            };
            let catalogues = flight.list(&CommandGetCatalogs {}).await.expect("rows");
            assert_eq!(column(&catalogues, 0), ["starling"]);
            let listed = flight.list(&CommandGetDbSchemas::default()).await.expect("rows");
            assert_eq!(column(&listed, 1), schemas, "{user}");
            // As information_schema tells it over SQL.
            let tables = flight.list(&CommandGetTables { include_schema: true, ..Default::default() }).await.expect("rows");
            let ours: BTreeSet<String> =
                column(&tables, 1).iter().zip(column(&tables, 2)).map(|(schema, table)| format!("{schema}.{table}")).collect();
            let told = "SELECT table_schema || '.' || table_name FROM information_schema.tables \
                        WHERE table_schema NOT IN ('pg_catalog', 'information_schema')";
            let theirs: BTreeSet<String> = column(&flight.ask(told).await.expect("rows"), 0).into_iter().collect();
            assert_eq!(ours, theirs, "{user}");
            assert!(
                ours.len() > 10 && ours.iter().any(|table| table.starts_with("private.")) == (user == "ada"),
                "{user}: {ours:?}"
            );
            // The columns of each are those that it is read with.
            for batch in &tables.batches {
                for row in 0..batch.num_rows() {
                    let (schema, name) =
                        (batch.column(1).as_string::<i32>().value(row), batch.column(2).as_string::<i32>().value(row));
                    let bytes = batch.column(4).as_binary::<i32>().value(row).to_vec();
                    let columns = Schema::try_from(IpcMessage(bytes.into())).expect("columns");
                    if schema != "private" {
                        let read = flight.plan(&format!("SELECT * FROM {schema}.{name}")).await.expect("plans");
                        assert_eq!(read.try_decode_schema().expect("columns"), columns, "{schema}.{name}");
                    }
                }
            }
            // By a pattern nothing more is found.
            for pattern in ["%", "pri%", "private", "_rivate"] {
                let asked = CommandGetTables { db_schema_filter_pattern: Some(pattern.to_owned()), ..Default::default() };
                let found = flight.list(&asked).await.expect("rows");
                assert_eq!(column(&found, 1).iter().any(|schema| schema == "private"), user == "ada", "{user}: {pattern}");
            }
        }
        let ada = nobody.with(&token(house, "ada"));
        assert_eq!(ada.list(&CommandGetTableTypes {}).await.expect("rows").batches[0].num_rows(), 1);
        let types = ada.list(&CommandGetXdbcTypeInfo { data_type: None }).await.expect("rows");
        assert_eq!(types.batches[0].num_rows(), 9);
        let infos = vec![SqlInfo::FlightSqlServerName as u32, SqlInfo::FlightSqlServerSubstrait as u32];
        let told = ada.list(&CommandGetSqlInfo { info: infos }).await.expect("rows").table();
        assert!(told.contains("Starling") && told.contains("false"), "{told}");
        // There are no keys, of what there is and of what there is not.
        for table in ["calls_daily", "c4n4ry"] {
            let none = |rows: crate::client::Rows| rows.batches.iter().map(RecordBatch::num_rows).sum::<usize>() == 0;
            let (table, schema) = (table.to_owned(), Some("stats".to_owned()));
            let primary = CommandGetPrimaryKeys { table: table.clone(), db_schema: schema.clone(), ..Default::default() };
            assert!(none(ada.list(&primary).await.expect("rows")));
            let exported = CommandGetExportedKeys { table: table.clone(), db_schema: schema.clone(), ..Default::default() };
            assert!(none(ada.list(&exported).await.expect("rows")));
            let imported = CommandGetImportedKeys { table, db_schema: schema, ..Default::default() };
            assert!(none(ada.list(&imported).await.expect("rows")));
            assert!(none(ada.list(&CommandGetCrossReference::default()).await.expect("rows")));
        }
        let long = CommandGetTables { table_name_filter_pattern: Some("%a".repeat(200)), ..Default::default() };
        assert_eq!(refusal(ada.info(&long).await), (Code::InvalidArgument, "54000".to_owned()));
        let many = CommandGetSqlInfo { info: vec![SqlInfo::FlightSqlServerName as u32; 65] };
        assert_eq!(refusal(ada.info(&many).await), (Code::InvalidArgument, "54000".to_owned()));
        let many = CommandGetTables { table_types: vec!["VIEW".to_owned(); 65], ..Default::default() };
        assert_eq!(refusal(ada.info(&many).await), (Code::InvalidArgument, "54000".to_owned()));
    });
}
