//! The engine of private questions against somebody who wants it to be wrong.

mod accepted;
mod attacks;
mod beside;
mod crowd;
mod fractions;
mod generate;
mod hours;
mod house;
mod neighbours;
mod outputs;
mod passes;
mod quantiles;
mod suggest;

use std::sync::Arc;

use starling_schemas::time::FixedClock;

use crate::{Engine, Limits, QueryError, Vault};
use house::{House, NOW_MS};

fn vault(house: &House) -> Vault {
    let (metastore, files) = (Arc::clone(&house.metastore), Arc::clone(&house.files));
    Vault::new(metastore, files, Arc::clone(&house.keyring), Arc::clone(&house.catalogue))
}

async fn engine(house: &House) -> Engine {
    Engine::open_private(vault(house), Arc::new(FixedClock::new(NOW_MS)), Limits::default()).await.expect("opens")
}

/// The one number of an answer with one row and one column.
async fn number(engine: &Engine, sql: &str) -> i64 {
    let answer = engine.query(sql).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
    let column = arrow::compute::cast(answer.batches[0].column(0), &arrow::datatypes::DataType::Int64).expect("a number");
    arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&column).value(0)
}

async fn refusal(engine: &Engine, sql: &str) -> QueryError {
    match engine.query(sql).await {
        Ok(_) => panic!("this must be refused: {sql}"),
        Err(error) => error,
    }
}
