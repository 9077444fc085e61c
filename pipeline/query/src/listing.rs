//! What there is, as data: for doors whose protocol asks for tables in its own words and not in SQL.

use arrow::datatypes::SchemaRef;

use crate::answer::Answer;
use crate::catalogue::CATALOGUE;
use crate::system::{INFORMATION_SCHEMA, PG_CATALOG, Picture};

/// The schemas and tables that one principal may read, from where `information_schema` has them.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The one catalogue's name.
    pub catalogue: &'static str,
    /// Names of schemas.
    pub schemas: Vec<&'static str>,
    /// Their tables.
    pub tables: Vec<Listed>,
}

/// One table.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its schema.
    pub schema: &'static str,
    /// Its name in it.
    pub name: String,
    /// Columns as a statement's answer has them, each with its comment.
    pub columns: SchemaRef,
}

impl Listing {
    /// Without PostgreSQL's own tables, which are for its clients.
    pub(crate) fn of(picture: &Picture) -> Self {
        let own = |schema: &str| schema != PG_CATALOG && schema != INFORMATION_SCHEMA;
        let tables = picture.relations.iter().filter(|relation| own(relation.schema)).map(|relation| Listed {
            schema: relation.schema,
            name: relation.name.clone(),
            columns: Answer::columns(&relation.columns),
        });
        Self {
            catalogue: CATALOGUE,
            schemas: picture.schemas.iter().map(|(name, _)| *name).filter(|name| own(name)).collect(),
            tables: tables.collect(),
        }
    }
}
