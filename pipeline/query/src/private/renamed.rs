//! A file's columns under the names and types of a protected table.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{cast, col};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;

use super::table::PERSON;

/// The table `inner`, of which only the dataset's columns are there, with the person under its one name.
#[derive(Debug)]
pub(crate) struct Renamed {
    inner: Arc<dyn TableProvider>,
    schema: SchemaRef,
    person: String,
}

impl Renamed {
    pub(crate) fn new(inner: Arc<dyn TableProvider>, schema: SchemaRef, person: &str) -> Self {
        Self { inner, schema, person: person.to_owned() }
    }
}

#[async_trait]
impl TableProvider for Renamed {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let theirs = self.inner.schema();
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let mut places = Vec::new();
        for at in &wanted {
            let name = self.schema.field(*at).name();
            places.push(theirs.index_of(if name == PERSON { &self.person } else { name })?);
        }
        let scan = self.inner.scan(state, Some(&places), &[], limit).await?;
        let mut shown: Vec<(Arc<dyn PhysicalExpr>, String)> = Vec::new();
        for (place, at) in places.iter().zip(&wanted) {
            let (field, own) = (theirs.field(*place), self.schema.field(*at));
            let column = col(field.name(), &scan.schema())?;
            let column = if own.data_type() == field.data_type() || *own.data_type() != DataType::Int64 {
                column
            } else {
                cast(column, &scan.schema(), DataType::Int64)?
            };
            shown.push((column, own.name().clone()));
        }
        Ok(Arc::new(ProjectionExec::try_new(shown, scan)?))
    }
}
