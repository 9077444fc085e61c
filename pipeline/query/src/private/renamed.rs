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

use starling_schemas::questions::Questions;

use super::fractions::InParts;
use super::table::PERSON;

/// The table `inner`, of which only the dataset's columns are there, with the person under its one name.
#[derive(Debug)]
pub(crate) struct Renamed {
    inner: Arc<dyn TableProvider>,
    schema: SchemaRef,
    questions: Arc<Questions>,
    person: String,
}

impl Renamed {
    pub(crate) fn new(inner: Arc<dyn TableProvider>, schema: SchemaRef, questions: &Arc<Questions>, person: &str) -> Self {
        Self { inner, schema, questions: Arc::clone(questions), person: person.to_owned() }
    }

    /// What a column is called in the file, and in how many parts its numbers are counted.
    fn theirs<'a>(&'a self, own: &'a str) -> (&'a str, Option<u32>) {
        if own == PERSON {
            return (&self.person, None);
        }
        match self.questions.measures.get(own) {
            Some(measure) => (measure.column.as_deref().unwrap_or(own), measure.times),
            None => (own, None),
        }
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
            places.push(theirs.index_of(self.theirs(self.schema.field(*at).name()).0)?);
        }
        // Two columns may be made of one.
        let mut read = places.clone();
        read.sort_unstable();
        read.dedup();
        let scan = self.inner.scan(state, Some(&read), &[], limit).await?;
        let mut shown: Vec<(Arc<dyn PhysicalExpr>, String)> = Vec::new();
        for (place, at) in places.iter().zip(&wanted) {
            let (field, own) = (theirs.field(*place), self.schema.field(*at));
            let column = col(field.name(), &scan.schema())?;
            let column = match self.theirs(own.name()).1 {
                Some(times) => Arc::new(InParts::of(column, times)) as Arc<dyn PhysicalExpr>,
                None if own.data_type() == field.data_type() || *own.data_type() != DataType::Int64 => column,
                None => cast(column, &scan.schema(), DataType::Int64)?,
            };
            shown.push((column, own.name().clone()));
        }
        Ok(Arc::new(ProjectionExec::try_new(shown, scan)?))
    }
}
