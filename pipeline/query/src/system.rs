//! `pg_catalog` and `information_schema`: what clients of PostgreSQL look around in before they show anything.
//!
//! ```text
//!  text ─► parse tree ─► is_asked? ─no──► the gate, as ever
//!                            └─yes─► rewrite: PostgreSQL's own constructs become plain ones ─► the gate, with the lists of system statements
//!                                       └─ Picture: the tables that whoever asks may read, and nothing else
//! ```
//!
//! **Comes in:** who asks, and the tables of `stats`, `meta`, `private` and `integrity` that it may read, from where `meta.columns`
//! has them.
//! **Goes out:** rows about those tables, made for one statement. Names, types and comments; never a row of any of them.
//!
//! # Who attacks, what he sees, what bounds him
//!
//! A client with a role looks for what it may not read. A [`Picture`] is made from what its role's row in `rights` allows, and tables, functions and
//! casts know nothing but the picture: there is no other source they could tell from. Of people it holds whoever asks. A table that may not be
//! read and one that is not there look the same.
//!
//! - System tables are read by themselves. A statement that names one and a table of `stats`, `meta`, `private` or `integrity` is
//!   refused, so that nothing of them is ever part of a question over protected rows, its price or its name.
//! - The lists of plan nodes are the gate's, and its bounds of how wide a text can grow. System statements may use more functions, each here, pure and
//!   bounded by what it is given, and regular expressions that are written out (one is compiled, and takes time in proportion to the text). Nothing here reads a file, a setting of the server or a clock: `pg_read_file`, `pg_sleep`, `lo_import`,
//!   `set_config` and whatever else is not listed does not exist. `current_setting` knows [`SETTINGS`] and is refused for the rest.
//! - Statements have the limits of all statements, and are logged as all are (I6): one entry for many that come at once keeps DBeaver's hundreds cheap, and
//!   a log without exceptions is one that can be trusted.
//!
//! # Why not `datafusion-pg-catalog`
//!
//! Its version for this DataFusion (0.19) needs DataFusion with its default features, which would put file formats and functions into this build that the
//! gate is there to keep out. It shows all that is registered to everybody, and answers some of psql's statements by their text. Here a rule is about a
//! construct: what it cannot be made into is refused.
//!
//! # What is not PostgreSQL
//!
//! Numbers of objects come from their names and are the same for ever and for everybody; types have PostgreSQL's own. Lists are their texts, `{a,b}`. Tables that have
//! no meaning here (constraints, indexes, policies and their like) are there and empty. `reltuples` is -1: nothing is told of sizes.

mod empty;
pub(crate) mod functions;
pub(crate) mod rewrite;
mod rows;
mod shape;
pub(crate) mod tables;

use std::collections::HashMap;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::error::Result as DataFusionResult;
use starling_schemas::rows::COMMENT;

use crate::alerts::INTEGRITY;
use crate::bills::BILLING;
use crate::businesses::BUSINESS;
use crate::catalogue::{META, SCHEMAS, STATS, Shelf};
use crate::meta;
use crate::private::table::PRIVATE;
use crate::rights::Rights;

/// PostgreSQL's schema of its own tables.
pub(crate) const PG_CATALOG: &str = "pg_catalog";
/// The standard's.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";

/// The version whose tables these are.
pub(crate) const VERSION: &str = "16.0";
pub(crate) const VERSION_TEXT: &str = concat!("PostgreSQL 16.0 compatible; Starling ", env!("CARGO_PKG_VERSION"));

/// Who owns all there is, as PostgreSQL names it. Nobody can log in as it.
pub(crate) const OWNER: i64 = 10;
pub(crate) const OWNER_NAME: &str = "starling";
/// First number of an object of one's own.
const FIRST: i64 = 16_384;

/// Settings that are told, all of them fixed.
pub(crate) const SETTINGS: [(&str, &str); 17] = [
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("default_table_access_method", "heap"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "on"),
    ("extra_float_digits", "1"),
    ("integer_datetimes", "on"),
    ("IntervalStyle", "postgres"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("search_path", "stats"),
    ("server_encoding", "UTF8"),
    ("server_version", VERSION),
    ("server_version_num", "160000"),
    ("standard_conforming_strings", "on"),
    ("TimeZone", "UTC"),
    ("transaction_isolation", "read committed"),
];

/// A table that may be read.
#[derive(Debug)]
pub(crate) struct Relation {
    pub(crate) oid: i64,
    pub(crate) schema: &'static str,
    pub(crate) name: String,
    pub(crate) comment: String,
    pub(crate) columns: SchemaRef,
}

/// All that one principal may know of what there is.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) user: String,
    /// Schema and its comment, where it may be read.
    pub(crate) schemas: Vec<(&'static str, &'static str)>,
    pub(crate) relations: Vec<Relation>,
    by_oid: HashMap<i64, usize>,
}

/// The number of an object, from what it is and its name. PostgreSQL's own tables have its numbers where clients know them.
pub(crate) fn oid(kind: &str, name: &str) -> i64 {
    let known = [
        ("pg_catalog", 11),
        ("pg_catalog.pg_class", 1259),
        ("pg_catalog.pg_type", 1247),
        ("pg_catalog.pg_attribute", 1249),
        ("pg_catalog.pg_proc", 1255),
        ("pg_catalog.pg_namespace", 2615),
        ("pg_catalog.pg_database", 1262),
        ("pg_catalog.pg_authid", 1260),
        ("pg_catalog.pg_description", 2609),
        ("pg_catalog.pg_constraint", 2606),
    ];
    if let Some((_, oid)) = known.iter().find(|(known, _)| *known == name) {
        return *oid;
    }
    let hash = blake3::hash(format!("{kind} {name}").as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    FIRST + i64::from(u32::from_be_bytes([a, b, c, d])) % (i64::from(i32::MAX) - FIRST)
}

/// What a schema is for.
fn about(schema: &str) -> &'static str {
    match schema {
        STATS => "released statistics, with error bars; free to read",
        META => "what there is to know about the statistics: definitions, budgets, charges, releases",
        PRIVATE => "protected rows, which are aggregated only: answers have noise, and a team pays for them",
        INTEGRITY => "alerts and where the work on them stands, for who works on them",
        BILLING => "what businesses are billed for, exactly, for who writes the bills",
        BUSINESS => "what businesses say of themselves, for who works with businesses",
        PG_CATALOG => "PostgreSQL's own tables, as far as they mean anything here",
        _ => "the standard's tables about tables",
    }
}

impl Picture {
    /// What may be read by whoever asks, as of now.
    pub(crate) async fn of(shelf: &Shelf, rights: Rights, user: &str) -> Self {
        let mut relations: Vec<Relation> = Vec::new();
        let mut add = |schema: &'static str, name: &str, comment: &str, columns: SchemaRef| {
            let oid = oid("table", &format!("{schema}.{name}"));
            relations.push(Relation { oid, schema, name: name.to_owned(), comment: comment.to_owned(), columns });
        };
        for table in meta::readable(shelf, rights).await {
            add(table.schema, &table.name, &table.comment, table.columns);
        }
        for (table, columns) in tables::with_columns() {
            add(table.schema, table.name, "", columns);
        }
        let by_oid = relations.iter().enumerate().map(|(at, relation)| (relation.oid, at)).collect();
        let readable = SCHEMAS.into_iter().filter(|schema| rights.allow(schema));
        // A schema without a table is not there: the command line's has no protected one where no vault is open.
        let there = readable.filter(|schema| relations.iter().any(|relation| relation.schema == *schema));
        let schemas = there.chain([PG_CATALOG, INFORMATION_SCHEMA]).map(|schema| (schema, about(schema))).collect();
        Self { user: user.to_owned(), schemas, relations, by_oid }
    }

    pub(crate) fn by_oid(&self, oid: i64) -> Option<&Relation> {
        self.by_oid.get(&oid).map(|at| &self.relations[*at])
    }

    /// A relation by its name, with or without its schema: without it, one of PostgreSQL's own or a released statistic.
    pub(crate) fn named(&self, name: &str) -> Option<&Relation> {
        let parts: Vec<String> = name
            .split('.')
            .map(|part| match part.strip_prefix('"').and_then(|p| p.strip_suffix('"')) {
                Some(quoted) => quoted.to_owned(),
                None => part.to_lowercase(),
            })
            .collect();
        let find = |schema: &str, name: &str| self.relations.iter().find(|r| r.schema == schema && r.name == name);
        match parts.as_slice() {
            [name] => find(PG_CATALOG, name).or_else(|| find(STATS, name)),
            [schema, name] => find(schema, name),
            _ => None,
        }
    }

    /// Whether it is found without its schema.
    pub(crate) fn is_visible(&self, oid: i64) -> bool {
        self.by_oid(oid).is_some_and(|relation| [STATS, PG_CATALOG].contains(&relation.schema))
    }

    /// A relation's name, with its schema where it would not be found without.
    pub(crate) fn shown(&self, oid: i64) -> String {
        match self.by_oid(oid) {
            Some(relation) if self.is_visible(oid) => relation.name.clone(),
            Some(relation) => format!("{}.{}", relation.schema, relation.name),
            None => oid.to_string(),
        }
    }

    pub(crate) fn user_oid(&self) -> i64 {
        oid("role", &self.user)
    }

    pub(crate) fn role(&self, oid: i64) -> String {
        match oid {
            OWNER => OWNER_NAME.to_owned(),
            oid if oid == self.user_oid() => self.user.clone(),
            _ => format!("unknown (OID={oid})"),
        }
    }

    /// A column's comment, by its place from 1.
    pub(crate) fn column_comment(&self, oid: i64, place: usize) -> Option<String> {
        let field = self.by_oid(oid)?.columns.fields().get(place.checked_sub(1)?)?.clone();
        field.metadata().get(COMMENT).filter(|comment| !comment.is_empty()).cloned()
    }

    /// The table of this name, with its rows.
    pub(crate) fn table(&self, schema: &str, name: &str) -> DataFusionResult<Option<meta::Facts>> {
        let Some(spec) = tables::all().find(|table| table.schema == schema && table.name == name) else { return Ok(None) };
        rows::facts(spec, self).map(Some)
    }
}

/// PostgreSQL's number, name and width of the type a column is told as.
pub(crate) fn type_of(kind: &DataType) -> (i64, &'static str, i64) {
    match kind {
        DataType::Boolean => (16, "bool", 1),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => (21, "int2", 2),
        DataType::Int32 | DataType::UInt16 => (23, "int4", 4),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => (20, "int8", 8),
        DataType::Float32 => (700, "float4", 4),
        DataType::Float64 => (701, "float8", 8),
        DataType::Decimal128(..) | DataType::Decimal256(..) => (1700, "numeric", -1),
        DataType::Date32 | DataType::Date64 => (1082, "date", 4),
        DataType::Timestamp(_, None) => (1114, "timestamp", 8),
        DataType::Timestamp(_, Some(_)) => (1184, "timestamptz", 8),
        _ => (25, "text", -1),
    }
}

/// Types that are told: number, name, name in SQL, width, category.
pub(crate) const TYPES: [(i64, &str, &str, i64, &str); 17] = [
    (16, "bool", "boolean", 1, "B"),
    (17, "bytea", "bytea", -1, "U"),
    (18, "char", "\"char\"", 1, "Z"),
    (19, "name", "name", 64, "S"),
    (20, "int8", "bigint", 8, "N"),
    (21, "int2", "smallint", 2, "N"),
    (23, "int4", "integer", 4, "N"),
    (25, "text", "text", -1, "S"),
    (26, "oid", "oid", 4, "N"),
    (700, "float4", "real", 4, "N"),
    (701, "float8", "double precision", 8, "N"),
    (1042, "bpchar", "character", -1, "S"),
    (1043, "varchar", "character varying", -1, "S"),
    (1082, "date", "date", 4, "D"),
    (1114, "timestamp", "timestamp without time zone", 8, "D"),
    (1184, "timestamptz", "timestamp with time zone", 8, "D"),
    (1700, "numeric", "numeric", -1, "N"),
];

/// A number of a type by its name, either one.
pub(crate) fn type_named(name: &str) -> Option<i64> {
    let name = name.trim().trim_start_matches("pg_catalog.").trim_matches('"').to_lowercase();
    TYPES.iter().find(|row| row.1 == name || row.2.trim_matches('"') == name).map(|row| row.0)
}

/// A type's name in SQL.
pub(crate) fn type_shown(oid: i64) -> &'static str {
    TYPES.iter().find(|row| row.0 == oid).map_or("???", |row| row.2)
}
